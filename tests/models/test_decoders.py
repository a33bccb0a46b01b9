import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork

from slotcon_plugin.models import FPNDecoder, TorchvisionResNet
from slotcon_plugin.models.decoders import FeaturePyramid


def stage_maps(side, channels=(8, 16, 24, 32), strides=(4, 8, 16, 32)):
    return [torch.randn(2, c, -(-side // s), -(-side // s)) for c, s in zip(channels, strides)]


@pytest.mark.parametrize("side", [64, 100])
def test_the_pyramid_is_torchvisions(side):
    maps = stage_maps(side)
    ours, theirs = FeaturePyramid((8, 16, 24, 32), 12), FeaturePyramidNetwork([8, 16, 24, 32], 12)
    names = {"lateral": "inner_blocks", "output": "layer_blocks"}
    renamed = {
        f"{names[part]}.{level}.0.{leaf}": value
        for (part, level, leaf), value in ((k.split("."), v) for k, v in ours.state_dict().items())
    }
    theirs.load_state_dict(renamed)
    expected = theirs(dict(enumerate(maps))).values()
    for got, want in zip(ours(maps), expected):
        assert torch.allclose(got, want, atol=1e-6)


def test_names_that_converters_read():
    names = set(FPNDecoder((8, 16, 24, 32)).state_dict())
    parts = {f"fpn.{p}.{i}.{leaf}" for p in ("lateral", "output") for i in range(4) for leaf in ("weight", "bias")}
    assert {name for name in names if name.startswith("fpn.")} == parts


@pytest.mark.parametrize(("side", "stride", "expected"), [(224, 4, 56), (224, 8, 28), (100, 4, 25), (36, 16, 3)])
def test_output_size(side, stride, expected):
    decoder = FPNDecoder((8, 16, 24, 32), fpn_channels=8, channels=32, output_stride=stride)
    assert decoder(stage_maps(side)).shape == (2, 32, expected, expected)


def test_dilated_backbones_too():
    backbone = TorchvisionResNet(50, stride=8).eval()
    decoder = FPNDecoder(backbone.out_channels, backbone.strides, fpn_channels=8, channels=32)
    assert decoder(backbone(torch.randn(1, 3, 64, 64))).shape == (1, 32, 16, 16)


def test_the_papers_size():
    backbone = TorchvisionResNet(50).eval()
    with torch.no_grad():
        out = FPNDecoder(backbone.out_channels, backbone.strides)(backbone(torch.randn(1, 3, 224, 224)))
    assert out.shape == (1, 128, 56, 56)


def test_every_level_reaches_the_embedding_and_images_stay_apart():
    decoder = FPNDecoder((8, 16, 24, 32), fpn_channels=8, channels=32)
    maps = [m.requires_grad_() for m in stage_maps(64)]
    together = decoder(maps)
    together[0].square().sum().backward()
    for m in maps:
        assert m.grad[0].abs().sum() > 0
        assert torch.equal(m.grad[1], torch.zeros_like(m.grad[1]))
    alone = decoder([m[:1] for m in maps])
    assert torch.allclose(alone, together[:1], atol=1e-5)


def test_a_coarse_position_lands_where_it_is_whatever_the_size():
    """The top level alone lights up at its first position: the output lights up at the top left, cut or not."""
    decoder = FPNDecoder((8, 16, 24, 32), fpn_channels=8, channels=32).eval()
    outputs = []
    for side in (96, 100):
        maps = [torch.zeros_like(m[:1]) for m in stage_maps(side)]
        dark = decoder(maps)
        maps[3][..., 0, 0] = 1.0
        outputs.append((decoder(maps) - dark).abs().sum(dim=(0, 1)))
    for out in outputs:
        row, column = divmod(out.argmax().item(), out.shape[1])
        assert max(row, column) < 12


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="multiple of 4"):
        FPNDecoder((8, 16), (4, 8), channels=102)
    with pytest.raises(ValueError, match="powers of two"):
        FPNDecoder((8, 16), (4, 12), channels=32)
    with pytest.raises(ValueError, match="2 maps but 4 strides"):
        FPNDecoder((8, 16), channels=32)
