"""The collectives and layers of several GPUs, over the one rank that a single GPU has."""

import os
import subprocess
import sys
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm

from slotcon_plugin.engine.checkpoint import open_checkpoint
from slotcon_plugin.models.distributed import AnyDeviceSyncBatchNorm
from tests.gpu.device import DEVICE, needs_device, on_gpu_alone

pytestmark = needs_device


@pytest.fixture
def one_rank(tmp_path):
    """A process group of this process: nccl on a GPU, gloo in a rehearsal."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl" if DEVICE == "cuda" else "gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_collectives_of_one_rank(one_rank):
    values = torch.randn(5, device=DEVICE)
    summed, gathered = values.clone(), [torch.zeros_like(values)]
    dist.all_reduce(summed)
    dist.all_gather(gathered, values)
    dist.barrier()
    assert summed.equal(values)
    assert gathered[0].equal(values)


def check_batch_norm_over_ranks(normalise):
    """``normalise(maps, layer)`` over the one rank is what the layer itself does: output, gradients, statistics."""
    torch.manual_seed(0)
    shape = (4, 8, 5, 5)
    maps, asked = torch.randn(2, *shape, device=DEVICE)
    results = []
    for call in (lambda x, layer: layer(x), normalise):
        layer = nn.BatchNorm2d(8).to(DEVICE)
        with torch.no_grad():
            layer.weight.copy_(torch.arange(1, 9))
        x = (3 * maps + 1).contiguous(memory_format=torch.channels_last).requires_grad_()
        out = call(x, layer)
        out.backward(asked)
        results.append((out, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_our_batch_norm_over_one_rank(one_rank):
    """With the collectives that one process leaves out by itself."""

    def normalise(x, layer):
        twin = AnyDeviceSyncBatchNorm(8).to(DEVICE)
        twin.weight, twin.bias = layer.weight, layer.bias
        twin.running_mean, twin.running_var = layer.running_mean, layer.running_var
        return twin(x)

    with (
        mock.patch("slotcon_plugin.models.distributed.get_world_size", return_value=2),
        mock.patch("torch.distributed.all_reduce", wraps=dist.all_reduce) as reduced,
    ):
        check_batch_norm_over_ranks(normalise)
    assert reduced.call_count == 4  # sums and squares, forward and backward


@on_gpu_alone
def test_torchs_batch_norm_over_one_rank(one_rank):
    """torch's layer takes plain BatchNorm's way where there is one rank. What it calls with more needs a GPU."""

    def normalise(x, layer):
        statistics = layer.running_mean, layer.running_var
        return SyncBatchNorm.apply(
            x, layer.weight, layer.bias, *statistics, layer.eps, layer.momentum, dist.group.WORLD, 1
        )

    check_batch_norm_over_ranks(normalise)


def test_one_process_of_the_launcher(repo, tmp_path, folder):
    """Three steps of DistributedDataParallel over one rank."""
    options = [
        "train_dataloader.batch_size=4",
        "train_dataloader.num_workers=0",
        "train_dataloader.dataset.view_size=64",
    ]
    options += ["train_cfg.max_epochs=1", "default_hooks.pictures=None"]
    words = ["configs/pretrain/slotcon_small.py", "1", "--photos", folder, "--work-dir", tmp_path / "run"]
    done = subprocess.run(
        ["bash", "tools/dist_train.sh", *words, "--cfg-options", *options],
        cwd=repo,
        env=os.environ | {"PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    state = open_checkpoint(tmp_path / "run/iter_3.pth")["state_dict"]
    assert all(value.isfinite().all() for value in state.values())
