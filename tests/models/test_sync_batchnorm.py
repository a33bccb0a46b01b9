"""What BatchNorms become in a run of several processes, seen from one: the same network under the same names."""

import mmengine.runner.runner as mmengine_runner
import pytest
import torch
from torch import nn

from slotcon_plugin.engine.runner import mended_mmengine
from slotcon_plugin.models import TimmBackbone, distributed


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
@pytest.mark.parametrize("norm_eval", [False, True])
@pytest.mark.parametrize("by_config", [False, True])
def test_a_network_stays_what_it_is(backend, norm_eval, by_config, monkeypatch):
    torch.manual_seed(0)
    network = TimmBackbone("test_efficientnet", norm_eval=norm_eval).train()
    images, before = torch.randn(2, 3, 64, 64), [p.requires_grad for p in network.parameters()]
    names, modes = list(network.state_dict()), [m.training for m in network.modules()]
    want = network.eval()(images)
    network.train()
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: backend)
    if by_config:  # sync_bn="torch", which mmengine would do in a way of its own
        with mended_mmengine():
            mmengine_runner.convert_sync_batchnorm(network, "torch")
    else:
        distributed.synchronise_batchnorm(network)
    kinds = (nn.SyncBatchNorm, distributed.AnyDeviceSyncBatchNorm)
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(m, kinds[backend == "gloo"]) for m in norms)
    assert (list(network.state_dict()), [p.requires_grad for p in network.parameters()]) == (names, before)
    assert [m.training for m in network.modules()] == modes
    for got, wanted in zip(network.eval()(images), want):
        torch.testing.assert_close(got, wanted)


def test_layers_without_weights_or_statistics_stay_so(monkeypatch):
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: "gloo")
    layers = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False))
    plain, bare = distributed.synchronise_batchnorm(layers)
    assert (plain.weight, plain.bias, bare.running_mean) == (None, None, None) and bare.weight is not None
