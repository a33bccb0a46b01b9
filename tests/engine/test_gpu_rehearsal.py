"""A whole run on a GPU that is not there: reports, warnings, pictures, probes, checkpoints, the closing words."""

from contextlib import ExitStack
from unittest import mock

import pytest
from mmengine.runner import Runner

from slotcon_plugin.apis import pretrain
from slotcon_plugin.config import load_config
from slotcon_plugin.demo_scenes import make_demo_scenes
from tests.fake_gpu import RehearsedGPU, onto_fake_gpu


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo_scenes(tmp_path_factory.mktemp("demo") / "scenes", {"train": 8, "val": 2}, size=(96, 64))


@pytest.mark.parametrize("name", ["slotcon_small", "vader_small", "densecl_small", "slotcon_decoder_small"])
def test_a_run_comes_to_its_end(name, demo, tmp_path):
    options = {
        "data_root": str(demo / "images/train"),
        "train_cfg.max_epochs": 2,
        "train_dataloader.batch_size": 4,
        "auto_scale_lr.base_batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.dataset.view_size": 64,
        "default_hooks.logger.interval": 1,
        "default_hooks.slot_health.interval": 1,
        "default_hooks.checkpoint.interval": 2,
    }
    cfg = load_config(name, options)
    if "pictures" in cfg.default_hooks:
        cfg.default_hooks.pictures.interval = 1
    probe = dict(type="LinearProbeHook", data=str(demo), input_size=(64, 96), epochs=1)
    labels = [dict(type="UnsupervisedSegHook", data=str(demo), short_side=64)] if name == "slotcon_small" else []
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), probe, *labels]
    cfg.work_dir, cfg.launcher = str(tmp_path / "run"), "none"
    gpu, wrap_model = RehearsedGPU(allow_non_fake_inputs=True), Runner.wrap_model
    with ExitStack() as patches:
        for target, value in {
            "slotcon_plugin.engine.mixed_precision.get_device": lambda: "cuda",
            "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
            "torch.cuda.is_bf16_supported": lambda: True,
            "torch.cuda.Event": mock.Mock,
            "torch.cuda.get_device_name": lambda *args: "H100",
            "torch.Tensor.backward": lambda loss: None,
            "torch.optim.Optimizer.zero_grad": lambda optimizer: None,
            "mmengine.runner.Runner.wrap_model": lambda *args: onto_fake_gpu(wrap_model(*args), gpu),
        }.items():
            patches.enter_context(mock.patch(target, value))
        with gpu:
            runner = pretrain(cfg)
    assert runner.iter == 4
    assert (tmp_path / "run/iter_4.pth").is_file() and (tmp_path / "run/health.jsonl").is_file()
