"""The weight gradient of wide convolutions against torch's own."""

import itertools

import pytest
import torch
from torch import nn

from slotcon_plugin.models import wide
from slotcon_plugin.models.wide import WideConv2d, use_quick_weight_gradients

GEOMETRIES = [(1, 0, 1), (1, 1, 1), (3, 1, 1), (3, 0, 1), (3, 2, 2), (3, 4, 4), (3, 3, 2), ((2, 3), (0, 2), (3, 1))]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(wide, "_WIDE", 4)


def pair(*args, **kwargs) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    torchs, ours = nn.Conv2d(*args, **kwargs), nn.Sequential(nn.Conv2d(*args, **kwargs))
    ours[0].load_state_dict(torchs.state_dict())
    use_quick_weight_gradients(ours)
    return torchs, ours[0]


@pytest.mark.parametrize(("geometry", "bias"), itertools.product(GEOMETRIES, (False, True)), ids=str)
def test_gradients_are_torchs(geometry, bias):
    """Any padding, more than "same" too; a tap may fall outside the map altogether; either memory format."""
    kernel, padding, dilation = geometry
    torchs, ours = pair(5, 7, kernel, padding=padding, dilation=dilation, bias=bias)
    assert type(ours) is WideConv2d
    for height, width in ((7, 9), (8, 4), (5, 6)):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(3, 5, height, width).contiguous(memory_format=layout).requires_grad_()
            expected, given = torchs(x), ours(x)
            assert torch.equal(given, expected)
            grad = torch.randn_like(expected)
            wanted = torch.autograd.grad(expected, (x, *torchs.parameters()), grad)
            seen = torch.autograd.grad(given, (x, *ours.parameters()), grad)
            for one, other in zip(seen, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_under_autocast_the_gradients_are_as_near_as_torchs():
    torchs, ours = pair(64, 48, 3, padding=2, dilation=2)
    x = torch.randn(4, 64, 6, 6)
    exact = torch.autograd.grad(torchs(x).square().sum(), torchs.parameters())
    errors = []
    for conv in (ours, torchs):
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        assert out.dtype == torch.bfloat16
        gradients = torch.autograd.grad(out.float().square().sum(), conv.parameters())
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        errors.append([(part - whole).norm() / whole.norm() for part, whole in zip(gradients, exact)])
    assert all(mine < 1.5 * torchs_own + 1e-4 for mine, torchs_own in zip(*errors))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 3, 1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_others_stay_torchs(conv):
    use_quick_weight_gradients(nn.Sequential(conv))
    assert type(conv) is nn.Conv2d
