"""Gradients of depthwise convolutions against torch's own."""

import itertools

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from slotcon_plugin.models import depthwise
from slotcon_plugin.models.depthwise import depthwise_conv2d, use_quick_gradients

KERNELS = [(3, 3), (5, 5), (7, 7), (3, 7)]
GEOMETRIES = [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)]  # stride, dilation


@pytest.mark.parametrize(("kernel", "geometry"), itertools.product(KERNELS, GEOMETRIES), ids=str)
def test_gradients_are_torchs(kernel, geometry, monkeypatch):
    """Sizes that stride and dilation divide and that they do not, more taps than rows, any padding."""
    torch.manual_seed(0)
    stride, dilation = geometry
    monkeypatch.setattr(depthwise, "_is_quick_already", lambda *_: False)
    for height, width in ((12, 9), (7, 16), (2, 3)):
        for padding in ((0, 0), tuple(dilation * (k // 2) for k in kernel), (1, 0)):
            if any(n + 2 * p <= dilation * (k - 1) for n, p, k in zip((height, width), padding, kernel)):
                continue
            x = torch.randn(2, 6, height, width, requires_grad=True)
            weight = torch.randn(6, 1, *kernel, requires_grad=True)
            expected = F.conv2d(x, weight, None, stride, padding, dilation, 6)
            given = depthwise_conv2d(x, weight, stride, padding, dilation)
            assert torch.equal(given, expected)
            grad = torch.randn_like(expected)
            wanted = torch.autograd.grad(expected, (x, weight), grad)
            for ours, torchs in zip(torch.autograd.grad(given, (x, weight), grad), wanted):
                torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-4)


def test_under_autocast_the_gradient_is_as_near_as_torchs():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 11, 13, requires_grad=True), torch.randn(8, 1, 5, 5, requires_grad=True)
    exact = torch.autograd.grad(F.conv2d(x, weight, None, 1, 2, 1, 8).square().sum(), (x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        ours, torchs = depthwise_conv2d(x, weight, 1, (2, 2)), F.conv2d(x, weight, None, 1, 2, 1, 8)
    assert ours.dtype == torch.bfloat16
    errors = [
        [(part - whole).norm() / whole.norm() for part, whole in zip(given, exact)]
        for given in (torch.autograd.grad(out.float().square().sum(), (x, weight)) for out in (ours, torchs))
    ]
    assert all(a < 1.5 * b + 1e-4 for a, b in zip(*errors))
    assert all(gradient.dtype == torch.float32 for gradient in exact)


def test_a_network_keeps_its_names_and_features():
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0, output_stride=16).eval()
    images = torch.randn(2, 3, 64, 96)
    keys, expected = list(network.state_dict()), network(images)
    expected.sum().backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    use_quick_gradients(network)
    assert sum("Quick" in type(module).__name__ for module in network.modules()) > 5
    given = network(images)
    given.sum().backward()
    assert list(network.state_dict()) == keys
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    ours = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()) + 1e-6)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 1, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 5, groups=8),
        nn.Conv2d(8, 8, 5),
        nn.Conv2d(8, 8, 5, stride=2, dilation=2, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect", groups=8),
    ],
)
def test_others_stay_torchs(conv):
    network = nn.Sequential(conv)
    use_quick_gradients(network)
    assert type(network[0]) is nn.Conv2d
