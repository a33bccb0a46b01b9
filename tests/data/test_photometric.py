"""Each batched operation against torchvision's, sample by sample, and the distributions of the drawn parameters."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.linalg import expm
from torchvision.transforms.v2 import functional as tv

from slotcon_plugin.data import photometric as ours
from slotcon_plugin.data.photometric import RECIPE, PhotometricConfig, apply_photometric, draw_photometric, plan_blocks

CLOSE = dict(atol=2e-6, rtol=0)


@pytest.fixture
def pixels():
    noise = torch.rand(12, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    noise[0, :, :4] = noise[0, :1, :4]  # greys, where hue has no meaning
    noise[1, :, 0, 0], noise[1, :, 0, 1] = 0, 1
    noise[2, 1] = noise[2, 0]  # two channels share the maximum
    return noise


def parameters(count, **columns):
    values = torch.tensor([ours.NEUTRAL] * count)
    for name, column in columns.items():
        values[:, getattr(ours, name)] = torch.as_tensor(column, dtype=torch.float32)
    return values


def spread(low, high, count=12):
    return torch.linspace(low, high, count)


def test_neutral_parameters_change_nothing(pixels):
    torch.testing.assert_close(apply_photometric(pixels.clone(), parameters(12)), pixels, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("column", "low", "high", "oracle"),
    [
        ("BRIGHTNESS", 0.0, 1.9, tv.adjust_brightness),
        ("CONTRAST", 0.0, 1.9, tv.adjust_contrast),
        ("SATURATION", 0.0, 1.9, tv.adjust_saturation),
        ("HUE", -0.5, 0.5, tv.adjust_hue),
    ],
)
def test_each_jitter_equals_torchvision(pixels, column, low, high, oracle):
    factors = spread(low, high)
    seen = apply_photometric(pixels.clone(), parameters(12, **{column: factors}))
    for n in range(12):
        torch.testing.assert_close(seen[n], oracle(pixels[n], float(factors[n])), **CLOSE)
    assert (seen - pixels).abs().amax() > 0.1


def test_jitter_in_every_order_equals_torchvision():
    generator = np.random.default_rng(0)
    pixels = torch.rand(24, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    orders = torch.tensor(
        [[a, b, c, d] for a in range(4) for b in range(4) for c in range(4) for d in range(4) if len({a, b, c, d}) == 4]
    )
    config = PhotometricConfig(jitter_prob=1, grey_prob=0, blur_prob=0)
    values = torch.from_numpy(np.stack([draw_photometric(generator, config) for _ in range(24)]))
    values[:, ours.ORDER] = orders.float()
    steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    seen = apply_photometric(pixels.clone(), values)
    for n in range(24):
        expected = pixels[n]
        for operation in orders[n].tolist():
            expected = steps[operation](expected, float(values[n, operation]))
        torch.testing.assert_close(seen[n], expected, atol=1e-5, rtol=0)


def test_grey_and_solarise_equal_torchvision_where_they_are_on(pixels):
    on = torch.arange(12) % 3 == 0
    grey = apply_photometric(pixels.clone(), parameters(12, GREY=on.float()))
    solarised = apply_photometric(pixels.clone(), parameters(12, SOLARISE=on.float()))
    for n in range(12):
        torch.testing.assert_close(grey[n], tv.rgb_to_grayscale(pixels[n], 3) if on[n] else pixels[n], **CLOSE)
        torch.testing.assert_close(solarised[n], tv.solarize(pixels[n], 128 / 255) if on[n] else pixels[n], **CLOSE)


def test_solarise_inverts_the_same_grey_levels_as_pillow():
    levels = torch.arange(256).div(255).expand(1, 3, 1, 256).clone()
    seen = apply_photometric(levels, parameters(1, SOLARISE=[1]))[0, 0, 0].mul(255).round().int().tolist()
    assert seen == [level if level < 128 else 255 - level for level in range(256)]


def diffused(signal: np.ndarray, time: float) -> np.ndarray:
    """Diffusion of the last axis, mirrored at both ends, for so long: the discrete Gaussian (Lindeberg 1990)."""
    size = signal.shape[-1]
    period = 2 * size - 2
    mirrored = np.concatenate([signal, signal[..., -2:0:-1]], axis=-1)
    laplace = -2 * np.eye(period) + np.roll(np.eye(period), 1, 0) + np.roll(np.eye(period), -1, 0)
    return (mirrored @ expm(time / 2 * laplace))[..., :size]


def test_blur_is_diffusion_with_each_samples_own_sigma(pixels):
    sigmas = spread(0.1, 2.0)
    sigmas[3] = 0
    seen = apply_photometric(pixels.clone(), parameters(12, BLUR_SIGMA=sigmas))
    for n in range(12):
        rows = diffused(pixels[n].double().numpy(), float(sigmas[n]) ** 2)
        expected = diffused(rows.swapaxes(-1, -2), float(sigmas[n]) ** 2).swapaxes(-1, -2)
        # the kernel ends a pixel behind three sigma
        np.testing.assert_allclose(seen[n].numpy(), expected, atol=2e-3 if sigmas[n] else 0)


@pytest.mark.parametrize("sigma", [0.2, 0.3, 0.4, 0.6, 0.9, 1.5, 2.0])
def test_an_edge_becomes_as_wide_as_the_recipes(sigma):
    """The reference blurs with Pillow, whose radius is the standard deviation too (approximated by boxes)."""
    edge = np.zeros((48, 48, 3), np.uint8)
    edge[:, 24:] = 255
    pillow = np.asarray(Image.fromarray(edge).filter(ImageFilter.GaussianBlur(sigma)))[24, :, 0] / 255
    seen = apply_photometric(
        torch.from_numpy(edge / 255).float().permute(2, 0, 1)[None].clone(), parameters(1, BLUR_SIGMA=[sigma])
    )
    ours, theirs = (_deviation(np.diff(profile)) for profile in (seen[0, 0, 24].double().numpy(), pillow))
    assert ours == pytest.approx(sigma, rel=0.01)
    assert ours == pytest.approx(theirs, abs=0.02)


def _deviation(density: np.ndarray) -> float:
    places = np.arange(len(density))
    mean = (density * places).sum() / density.sum()
    return float(np.sqrt((density * (places - mean) ** 2).sum() / density.sum()))


def test_a_sample_is_the_same_whatever_else_is_in_the_batch(pixels):
    rng = np.random.default_rng(3)
    values = torch.from_numpy(np.stack([draw_photometric(rng, RECIPE[n % 2]) for n in range(12)]))
    together = apply_photometric(pixels.clone(), values)
    alone = torch.cat([apply_photometric(pixels[n : n + 1].clone(), values[n : n + 1]) for n in range(12)])
    torch.testing.assert_close(together, alone, **CLOSE)


def test_blocks_are_a_permutation_sorted_by_sigma_and_fit_the_cache():
    values = parameters(40, BLUR_SIGMA=torch.rand(40))
    blocks = plan_blocks(values, ours._CPU_BLOCK // 7, torch.device("cpu"))
    assert sorted(torch.cat(blocks).tolist()) == list(range(40))
    assert max(map(len, blocks)) == 7
    assert values[torch.cat(blocks), ours.BLUR_SIGMA].diff().min() >= 0
    assert [block.tolist() for block in plan_blocks(values, 1, torch.device("meta"))] == [list(range(40))]


def test_autocast_does_not_touch_the_pixels(pixels):
    values = parameters(12, BLUR_SIGMA=torch.full((12,), 1.0))
    exact = apply_photometric(pixels.clone(), values)
    with torch.autocast("cpu", torch.bfloat16):
        seen = apply_photometric(pixels.clone(), values)
    torch.testing.assert_close(seen, exact, rtol=0, atol=0)


def test_drawn_parameters_follow_the_recipe():
    rng, count = np.random.default_rng(5), 6000
    first, second = (np.stack([draw_photometric(rng, config) for _ in range(count)]) for config in RECIPE)
    for values, blur, solarised in ((first, 1.0, 0.0), (second, 0.1, 0.2)):
        jittered = values[values[:, ours.BRIGHTNESS] != 1]
        # Six standard deviations of a share of 6,000 draws are .039 at most.
        assert len(jittered) / count == pytest.approx(0.8, abs=0.035)
        assert values[:, ours.GREY].mean() == pytest.approx(0.2, abs=0.035)
        assert (values[:, ours.BLUR_SIGMA] > 0).mean() == pytest.approx(blur, abs=0.025)
        assert values[:, ours.SOLARISE].mean() == pytest.approx(solarised, abs=0.035)
        for column, middle, reach in ((0, 1, 0.4), (1, 1, 0.4), (2, 1, 0.2), (3, 0, 0.1)):
            drawn = (jittered[:, column] - middle) / reach
            assert np.abs(drawn).max() <= 1 + 1e-5
            assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx([-0.5, 0, 0.5], abs=0.08)
        sigma = values[values[:, ours.BLUR_SIGMA] > 0, ours.BLUR_SIGMA]
        assert 0.1 <= sigma.min() < 0.15
        assert 1.95 < sigma.max() <= 2
        orders, counts = np.unique(jittered[:, ours.ORDER], axis=0, return_counts=True)
        assert len(orders) == 24
        assert (counts / len(jittered)) == pytest.approx(np.full(24, 1 / 24), abs=0.02)


@pytest.mark.parametrize(
    "wrong", [dict(hue=0.6), dict(grey_prob=1.2), dict(blur_sigma=(0, 1)), dict(blur_sigma=2), dict(contrast=-0.1)]
)
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PhotometricConfig(**wrong)
