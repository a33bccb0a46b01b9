"""What only a GPU can show: its figures are the CPU's, nothing waits, a run resumes, compiled is eager.

    python -m pytest -m gpu

Without a GPU all of it is skipped. SLOTCON_CHECK_DEVICE=cpu runs what a CPU can run, as a rehearsal.
"""

import os
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from slotcon_plugin.apis import pretrain
from slotcon_plugin.config import load_config, settle
from slotcon_plugin.engine import PretrainLoop
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models.queue import KeyQueue
from slotcon_plugin.registry import MODELS

DEVICE = os.environ.get("SLOTCON_CHECK_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU, and there is none"),
]
on_gpu_alone = pytest.mark.skipif(DEVICE == "cpu", reason="a rehearsal on the CPU")
METHODS = ["slotcon_small", "vader_small", "densecl_small"]
# Largest share by which a loss may differ from float32 on the CPU. Gradients are compared in float32 alone: which
# prototypes SlotCon finds in a photo changes with the last bits of untrained features.
BOUNDS = {torch.float32: 2e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


def make_batch(size=8, side=96):
    draw = torch.Generator().manual_seed(0)
    return TwoViewBatch(
        views=tuple(torch.randn(size, 3, side, side, generator=draw) for _ in range(2)),
        crop_boxes=torch.tensor([[[0.0, 0, 80, 80], [20, 10, 100, 90]]] * size),
        flipped=torch.tensor([[False, True]] * size),
        sample_index=torch.arange(size),
    )


def losses_and_gradient(model, device, dtype=torch.float32):
    """One step's loss and the gradient of all weights, on the CPU in float32; the same random numbers everywhere."""
    batch = make_batch()
    views, *rest = batch
    batch = TwoViewBatch(tuple(view.to(device) for view in views), *(value.to(device) for value in rest))
    rand, draw = torch.rand, torch.Generator().manual_seed(1)
    with mock.patch("torch.rand", lambda *shape, device=None: rand(*shape, generator=draw).to(device)):
        model = model.to(device).train()
        with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
            loss, _ = model.parse_losses(model(batch, mode="loss"))
    model.zero_grad()
    loss.backward()
    gradient = torch.cat([p.grad.flatten().float().cpu() for p in model.student.parameters()])
    return loss.item(), gradient


def build(repo, name, **options):
    torch.manual_seed(0)
    cfg = load_config(repo / f"configs/pretrain/{name}.py", {f"model.{key}": value for key, value in options.items()})
    settle(cfg)
    model = MODELS.build(cfg.model)
    for queue in (module for module in model.modules() if isinstance(module, KeyQueue)):
        queue.enqueue(F.normalize(torch.randn(64, queue.keys.shape[1]), dim=1), torch.arange(100, 164))
    return model


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_the_cpus(repo, name, dtype):
    want_loss, want = losses_and_gradient(build(repo, name), "cpu")
    loss, gradient = losses_and_gradient(build(repo, name), DEVICE, dtype)
    assert loss == pytest.approx(want_loss, rel=BOUNDS[dtype])
    assert gradient.isfinite().all()
    if dtype is torch.float32:
        assert torch.cosine_similarity(gradient, want, dim=0) > 0.999


@pytest.mark.parametrize("mode", [True, pytest.param("reduce-overhead", marks=on_gpu_alone)])
def test_compiled_is_eager(repo, mode):
    """The first step compiles, the second records graphs, the later ones replay them: with new weights each time."""
    eager, compiled = build(repo, "slotcon_small"), build(repo, "slotcon_small", compile=mode)
    for _ in range(4):
        (want_loss, want), (loss, gradient) = (losses_and_gradient(model, DEVICE) for model in (eager, compiled))
        assert loss == pytest.approx(want_loss, rel=1e-3)
        assert torch.cosine_similarity(gradient, want, dim=0) > 0.999
        with torch.no_grad():
            for ours, theirs in zip(compiled.student.parameters(), eager.student.parameters(), strict=True):
                theirs -= 1e-2 * theirs.grad
                ours.copy_(theirs)
        for model in (eager, compiled):
            model.update_teacher()


def config_of_a_run(repo, work_dir, photos, dtype="bfloat16", **options):
    settings = {
        "data_root": str(photos),
        "optim_wrapper.dtype": dtype,
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.dataset.view_size": 64,
        "train_cfg.max_epochs": 2,
        "+default_hooks.pictures": None,
    }
    cfg = load_config(repo / "configs/pretrain/slotcon_small.py", settings | options)
    cfg.work_dir = str(work_dir)
    return cfg


@on_gpu_alone
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_no_step_waits(repo, tmp_path, folder, dtype):
    """torch itself raises where the host would wait; the first step allocates and the last of an epoch reports."""
    run_iter = PretrainLoop.run_iter

    def watched(loop, idx, batch):
        torch.cuda.set_sync_debug_mode("error" if idx == 1 else "default")
        try:
            run_iter(loop, idx, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with mock.patch("slotcon_plugin.engine.PretrainLoop.run_iter", watched):
        pretrain(config_of_a_run(repo, tmp_path / "run", folder, dtype, **{"default_hooks.slot_health.interval": 3}))


def test_a_resumed_run_is_the_run_without_the_stop(repo, tmp_path, folder):
    every = {"default_hooks.checkpoint.interval": 3}
    whole = pretrain(config_of_a_run(repo, tmp_path / "whole", folder, "float32", **every)).model.state_dict()
    pretrain(config_of_a_run(repo, tmp_path / "parts", folder, "float32", **every))
    (tmp_path / "parts/iter_6.pth").unlink()
    parts = pretrain(config_of_a_run(repo, tmp_path / "parts", folder, "float32", **every), resume=True)
    for name, value in parts.model.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-2, atol=1e-3, msg=name)


@on_gpu_alone
def test_one_process_under_nccl(tmp_path):
    dist.init_process_group("nccl", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        plain = nn.BatchNorm2d(8).cuda()
        synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(8)).cuda()
        maps = torch.randn(4, 8, 5, 5, device="cuda")
        torch.testing.assert_close(synchronised(maps), plain(maps))
    finally:
        dist.destroy_process_group()
