"""Colour jitter, grey, blur and solarisation of whole batches, each sample with parameters of its own.

The parameters are drawn where a sample is made (from its key) and travel as a small vector; the pixels are worked on
where the model is. Which samples an operation concerns is decided from the vectors on the host, so nothing waits for
the device, and there is no loop over samples.

All pixel functions take and return float RGB in [0, 1], (N, 3, H, W).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ive
from torch import Tensor

from slotcon_plugin.errors import UserError

# Layout of the parameter vector. Columns 0-3 are the jitter's factors, 4-7 say which of the four comes at each step.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDER = slice(4, 8)
GREY, BLUR_SIGMA, SOLARISE = 8, 9, 10
NUM_PARAMETERS = 11

# A sample that nothing happens to.
NEUTRAL = (1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0)

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision and Pillow
SOLARISE_THRESHOLD = 128 / 255
BLUR_CUTOFF = 3  # in sigma

_CPU_BLOCK = 2**20  # numbers


@dataclass(frozen=True)
class PhotometricConfig:
    """Strengths and probabilities of one view's photometric augmentation.

    Args:
        brightness, contrast, saturation: factors are drawn from [1 - value, 1 + value].
        hue: shift is drawn from [-value, value], in turns of the colour wheel; at most .5.
        jitter_prob: probability of those four, applied in random order.
        grey_prob: probability of dropping the colour.
        blur_sigma: range of the Gaussian blur's standard deviation, in pixels of the view.
        blur_prob: probability of the blur.
        solarise_prob: probability of inverting the bright pixels.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_prob: float = 0.8
    grey_prob: float = 0.2
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_prob: float = 1.0
    solarise_prob: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter_prob", "grey_prob", "blur_prob", "solarise_prob", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"photometric {name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise UserError(f"photometric hue must lie in [0, .5], got {self.hue}")
        if not (isinstance(self.blur_sigma, (tuple, list)) and len(self.blur_sigma) == 2):
            raise UserError(f"photometric blur_sigma must be a pair of numbers, got {self.blur_sigma}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise UserError(f"photometric blur_sigma must be a range of positive sigmas, got {self.blur_sigma}")

    @classmethod
    def of(cls, settings: Mapping[str, Any] | PhotometricConfig) -> PhotometricConfig:
        """From a dict of a config file, or as it is.

        Raises:
            UserError: a name that is none of the above.
        """
        if isinstance(settings, cls):
            return settings
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
                raise UserError(f"the config's photometric takes no {name!r}; {hint}")
        return cls(**settings)


# The recipe of BYOL that SlotCon uses (arXiv 2205.15288, appendix): the first view is always blurred.
RECIPE = (PhotometricConfig(), PhotometricConfig(blur_prob=0.1, solarise_prob=0.2))


def draw_photometric(rng: np.random.Generator, config: PhotometricConfig) -> np.ndarray:
    """Parameters of one view: (NUM_PARAMETERS,) float32, see the layout above.

    Every operation's numbers are drawn whether it happens or not, so that they do not depend on each other.
    """
    u = rng.random(9).tolist()
    order = rng.permutation(4)
    values = np.array(NEUTRAL, dtype=np.float32)
    if u[0] < config.jitter_prob:
        values[BRIGHTNESS] = 1 + config.brightness * (2 * u[1] - 1)
        values[CONTRAST] = 1 + config.contrast * (2 * u[2] - 1)
        values[SATURATION] = 1 + config.saturation * (2 * u[3] - 1)
        values[HUE] = config.hue * (2 * u[4] - 1)
        values[ORDER] = order
    values[GREY] = u[5] < config.grey_prob
    if u[6] < config.blur_prob:
        values[BLUR_SIGMA] = config.blur_sigma[0] + u[7] * (config.blur_sigma[1] - config.blur_sigma[0])
    values[SOLARISE] = u[8] < config.solarise_prob
    return values


def plan_blocks(parameters: Tensor, size: int, device: torch.device) -> list[Tensor]:
    """Which samples to augment together.

    A CPU is several times as fast on blocks that stay in its cache, and samples of like sigma share a short blur
    kernel; other devices want the whole batch at once.

    Args:
        parameters: (N, NUM_PARAMETERS), on the CPU.
        size: numbers in one sample, 3 * H * W.
        device: where the pixels are.

    Returns:
        Indices into the batch, on the CPU; together they are a permutation of it.
    """
    if device.type != "cpu":
        return [torch.arange(len(parameters))]
    return list(parameters[:, BLUR_SIGMA].argsort().split(max(1, _CPU_BLOCK // size)))


@torch.no_grad()
def apply_photometric(pixels: Tensor, parameters: Tensor) -> Tensor:
    """Jitter, then grey, blur and solarise IN PLACE, as each sample's parameters say.

    Args:
        pixels: (N, 3, H, W) float32 in [0, 1], on any device.
        parameters: (N, NUM_PARAMETERS) float32, on the CPU.

    Returns:
        ``pixels``.
    """
    host = parameters.numpy()
    # In half precision, which autocast would choose, the blur's convolution would lose the lower bits of the pixels.
    with torch.autocast(pixels.device.type, enabled=False):
        color_jitter(pixels, host)
        for column, operation in ((GREY, to_grey), (BLUR_SIGMA, gaussian_blur), (SOLARISE, solarise)):
            _apply_where(host[:, column] > 0, operation, pixels, host[:, column])
    return pixels


def color_jitter(pixels: Tensor, host: np.ndarray) -> Tensor:
    """torchvision's ColorJitter IN PLACE, each sample with factors and an order of its own.

    Brightness, contrast and saturation all blend the picture with another one: black, its mean grey, its own grey.
    So every step is ONE blend of the whole batch, with targets that differ among the samples, and hue for those
    whose turn it is.
    """
    order = host[:, ORDER].astype(np.int64)
    for step in range(4):
        turn = order[:, step]
        factor = np.where(turn == HUE, 1, host[np.arange(len(host)), turn])
        if (factor != 1).any():
            _blend(pixels, factor, to_mean=turn == CONTRAST, to_grey=turn == SATURATION)
        _apply_where((turn == HUE) & (host[:, HUE] != 0), shift_hue, pixels, host[:, HUE])
    return pixels


def _blend(pixels: Tensor, factor: np.ndarray, to_mean: np.ndarray, to_grey: np.ndarray) -> None:
    """Move the pixels IN PLACE to target + factor * (pixels - target), within [0, 1].

    The target is the mean grey for contrast, the grey picture for saturation, black for brightness.
    """
    coefficients = _to_device(np.stack([factor, to_mean, to_grey]).astype(np.float32), pixels)
    factors, means, greys = coefficients[..., None, None, None].unbind(0)
    grey = luma(pixels)
    mean = grey.mean((1, 2, 3), keepdim=True)
    torch.lerp(grey.mul_(greys).add_(mean.mul_(means)), pixels, factors, out=pixels).clamp_(0, 1)


def luma(pixels: Tensor) -> Tensor:
    """Grey picture (N, 1, H, W)."""
    red, green, blue = pixels.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def to_grey(pixels: Tensor, _: np.ndarray | None = None) -> Tensor:
    """The grey picture in all three channels."""
    return luma(pixels).expand_as(pixels)


def shift_hue(pixels: Tensor, shift: np.ndarray) -> Tensor:
    """Turn the hue by ``shift`` (N,) float32, in turns of the colour wheel, with value and chroma kept (HSV).

    The way back from HSV is the closed form f(n) = V - C * clamp(min(k, 4 - k), 0, 1), k = (n + 6 H) mod 6, with
    n = 5, 3, 1 for red, green, blue and chroma C = V * S. With k - 2 brought to [-3, 3], min(k, 4 - k) = 2 - |k - 2|.
    Multiplies by masks instead of `torch.where`, which is several times as slow on a CPU.
    """
    red, green, blue = pixels.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    not_red, not_green = (value - red).sign_(), (value - green).sign_()
    is_red, is_green, is_blue = 1 - not_red, not_red - not_red * not_green, not_red * not_green
    sector = is_red.mul_(green - blue).addcmul_(is_green, blue - red).addcmul_(is_blue, red - green)
    sector.div_(chroma.clamp_min(1e-12)).add_(is_green, alpha=2).add_(is_blue, alpha=4)
    offset = _to_device(6 * shift[:, None] + np.array([3, 1, -1], dtype=np.float32), pixels)  # (N, 3)
    k = sector[:, None] + offset[..., None, None]  # (N, 3, H, W), k - 2 of the formula
    k.sub_(torch.round(k / 6), alpha=6).abs_().neg_().add_(2).clamp_(0, 1).mul_(chroma[:, None])
    return torch.sub(value[:, None], k, out=k)


def gaussian_blur(pixels: Tensor, sigma: np.ndarray) -> Tensor:
    """Blur by a Gaussian of ``sigma`` (N,) pixels, cut off a pixel behind ``BLUR_CUTOFF`` sigma; borders are mirrored.

    The kernel is the discrete Gaussian ``exp(-t) I_n(t)``, t = sigma^2 (Lindeberg 1990), whose variance is sigma^2 for
    every sigma. Samples of the continuous one are too narrow below half a pixel: .09 at sigma .3, where Pillow has .29.
    """
    count, channels, height, width = pixels.shape
    # The cut is each sample's own, so that what else is in the batch makes no difference.
    reach = (np.ceil(BLUR_CUTOFF * sigma) + 1).clip(max=min(height, width) - 1)[:, None]
    radius = int(reach.max())
    taps = np.arange(-radius, radius + 1)
    weights = ive(abs(taps), sigma[:, None].astype(np.float64) ** 2) * (abs(taps) <= reach)
    weights /= weights.sum(1, keepdims=True)
    kernel = _to_device(weights.repeat(channels, axis=0)[:, None].astype(np.float32), pixels)  # (N*C, 1, taps)
    padded = F.pad(pixels, (radius,) * 4, mode="reflect").flatten(0, 1)[None]  # (1, N*C, H + 2r, W + 2r)
    blurred = F.conv2d(padded, kernel[:, :, None, :], groups=count * channels)
    return F.conv2d(blurred, kernel[:, :, :, None], groups=count * channels).view_as(pixels)


def solarise(pixels: Tensor, _: np.ndarray | None = None) -> Tensor:
    """Invert what is as bright as the threshold or brighter."""
    bright = (pixels >= SOLARISE_THRESHOLD).to(pixels.dtype)
    return bright.mul_(1 - 2 * pixels).add_(pixels)


def _apply_where(
    chosen: np.ndarray, operation: Callable[[Tensor, np.ndarray], Tensor], pixels: Tensor, values: np.ndarray
) -> None:
    """pixels[n] = operation(pixels[n], values[n]) for the chosen n, in place, all at once."""
    if chosen.all():
        pixels.copy_(operation(pixels, values))
    elif chosen.any():
        index = _to_device(np.flatnonzero(chosen), pixels)
        pixels.index_copy_(0, index, operation(pixels.index_select(0, index), values[chosen]))


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy from the host to a device; the host does not wait, as it may for what lies in memory that is not pinned."""
    if device.type == "cuda" and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _to_device(values: np.ndarray, like: Tensor) -> Tensor:
    return send(torch.from_numpy(np.ascontiguousarray(values)), like.device)
