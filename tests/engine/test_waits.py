"""Nothing in a step that is not reported waits for the device, and no operation mixes devices; shown without a GPU.

The runner's own iterations run on tensors that claim to lie on a GPU: they have shapes and a device and no values, so
that asking for a value raises, as does an operation between a GPU's tensor and the host's.
"""

from contextlib import ExitStack
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

from slotcon_plugin.apis import pretrain
from slotcon_plugin.config import load_config, settle
from slotcon_plugin.engine import PretrainLoop
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.registry import MODELS
from tests.fake_gpu import FakeGPU, onto_fake_gpu
from tests.host_waits import HostWaits


class EnoughError(Exception):
    """Ends a run in the middle of an epoch."""


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.jpg")
    return tmp_path / "photos"


def waits_of_a_run(cfg, iterations=4):
    """What each iteration waited for, on a GPU that is not there."""
    mode, counted = FakeGPU(allow_non_fake_inputs=True), []
    run_iter, wrap_model = PretrainLoop.run_iter, Runner.wrap_model

    def counting(loop, idx, batch):
        if len(counted) == iterations:
            raise EnoughError
        with mode, HostWaits() as waits:
            run_iter(loop, idx, batch)
        counted.append(waits.lines)

    with ExitStack() as patches:
        for target, value in {
            "slotcon_plugin.engine.mixed_precision.get_device": lambda: "cuda",
            "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
            "torch.cuda.is_bf16_supported": lambda: True,
            "torch.Tensor.backward": lambda loss: None,
            "torch.optim.Optimizer.zero_grad": lambda optimizer: None,
            "slotcon_plugin.engine.late.LateFlag.__call__": lambda self, flag: False,
            "mmengine.runner.Runner.wrap_model": lambda *args: onto_fake_gpu(wrap_model(*args), mode),
            "slotcon_plugin.engine.PretrainLoop.run_iter": counting,
        }.items():
            patches.enter_context(mock.patch(target, value))
        with pytest.raises(EnoughError):
            pretrain(cfg)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["vader_small", "densecl_small", "slotcon_small"])
def test_no_step_waits_for_the_device(repo, tmp_path, photos, name, dtype):
    cfg = load_config(
        repo / f"configs/pretrain/{name}.py",
        {
            "data_root": str(photos),
            "optim_wrapper.dtype": dtype,
            "train_dataloader.batch_size": 4,
            "train_dataloader.num_workers": 0,
            "train_dataloader.dataset.view_size": 64,
            "default_hooks.logger.interval": 100,
            "default_hooks.slot_health.interval": 100,
            "+default_hooks.pictures": None,
        },
    )
    cfg.work_dir = str(tmp_path / "run")
    assert waits_of_a_run(cfg) == [{}] * 4


@pytest.mark.parametrize("name", ["vader_small", "densecl_small", "slotcon_small"])
def test_the_backward_pass_does_not_wait_either(repo, name):
    """On the CPU's own tensors, as far as these show it."""
    cfg = load_config(repo / f"configs/pretrain/{name}.py", {"model.queue_size": 64} if name != "slotcon_small" else {})
    settle(cfg)
    model = MODELS.build(cfg.model)
    batch = TwoViewBatch(
        views=(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)),
        crop_boxes=torch.tensor([[[0.0, 0, 80, 80], [20, 10, 100, 90]]] * 2),
        flipped=torch.tensor([[False, True]] * 2),
        sample_index=torch.arange(2),
    )
    loss, _ = model.parse_losses(model(batch, mode="loss"))
    with HostWaits("cpu") as waits:
        loss.backward()
    assert not waits.lines
