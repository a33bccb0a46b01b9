"""Every channel to mean 0 and variance 1 over batch and positions, by running statistics in evaluation."""

import pytest
import torch

from slotcon_plugin.models import StandardisedMaps


def test_each_channel_is_standardised_by_itself():
    torch.manual_seed(0)
    neck = StandardisedMaps([3, 5])
    scale = torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1)
    maps = [torch.randn(4, 3, 6, 8) * scale + 5 * scale, torch.randn(4, 5, 3, 4)]
    for one, given in zip(maps, neck(maps)):
        expected = (one - one.mean((0, 2, 3), keepdim=True)) / one.std((0, 2, 3), keepdim=True, correction=0)
        torch.testing.assert_close(given[:, 1:], expected[:, 1:], rtol=1e-3, atol=1e-3)
    assert not list(neck.parameters())
    running = neck.eval()(maps)[1][0, 0, 0, 0]
    first = neck.norms[1]
    expected = (maps[1][0, 0, 0, 0] - first.running_mean[0]) / first.running_var[0].sqrt()
    torch.testing.assert_close(running, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="zip"):
        neck(maps[:1])
