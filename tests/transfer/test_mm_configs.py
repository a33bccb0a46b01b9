"""Every mm transfer config in its real framework: converted backbone in, two steps, evaluation, result file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from slotcon_plugin.convert import read_checkpoint
from slotcon_plugin.engine import AtomicLocalBackend, SafeCheckpointHook
from slotcon_plugin.errors import RunStoppedError, UserError
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.mm_hooks import TransferRun

from .shrink import shrink
from .test_timm import RUN as OF_TIMM

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transfer"
LAYOUT = {
    "mmseg/fcn_r50_voc12aug": "voc",
    "mmseg/fcn_r50_cityscapes": "cityscapes",
    "mmseg/fcn_r50_ade20k": "ade20k",
    "mmseg/fpn_r50_ade20k": "ade20k",
    "mmseg/fcn_r18_camvid": "camvid",
    "mmseg/fpn_r18_camvid": "camvid",
    "mmseg/fpn_r18_own": "camvid",
    "mmdet/mask_rcnn_r50_fpn_1x_coco": "coco",
    "mmdet/mask_rcnn_r18_fpn_coco_small": "coco",
}
OF_ONES_OWN = {"mmdet/rcnn_r18_fpn_own", "mmdet/rcnn_lite0_fpn_own", "mmseg/fcn_lite0_own"}  # in test_own_data.py
A_TENTH = ("fcn_lite0_camvid", "fpn_r18_camvid")
SAME_BUT_LONGER = {"mmdet/mask_rcnn_r50_fpn_2x_coco": "mmdet/mask_rcnn_r50_fpn_1x_coco"}


def load(name: str, work_dir: Path) -> Config:
    cfg = Config.fromfile(CONFIGS / f"{name}.py")
    cfg.work_dir, cfg.launcher = str(work_dir), "none"
    return cfg


def test_every_config_is_run_here():
    found = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("mm*/*.py")}
    tenths = {f"mmseg/{name}_tenth" for name in A_TENTH}
    assert found == {*LAYOUT, *SAME_BUT_LONGER, *OF_TIMM, *OF_ONES_OWN, *tenths}


@pytest.mark.parametrize("name", A_TENTH)
def test_a_tenth_of_the_labels_is_the_same_with_every_tenth_photo(name, tmp_path):
    whole, tenth = (load(f"mmseg/{name}{share}", tmp_path).to_dict() for share in ("", "_tenth"))
    assert tenth["train_dataloader"]["dataset"].pop("indices") == list(range(0, 367, 10))
    assert tenth == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUT)
def test_config_trains_from_a_pretraining_checkpoint(name, tmp_path, scenes, pretrained):
    cfg = shrink(load(name, tmp_path))
    checkpoint = pretrained(cfg.model.backbone.depth)
    runner = openmmlab.train(cfg, backbone=str(checkpoint), data_root=str(scenes(LAYOUT[name])))

    teacher = read_checkpoint(checkpoint)
    result = read_result(tmp_path / "result.json")
    assert result["backbone_sha256"] == teacher.meta["backbone_sha256"]
    assert result["pretraining"] == "slotcon"
    assert result["task"] == name.replace("/", "_")
    assert result["config"] == f"configs/transfer/{name}.py"
    assert result["iterations"] == runner.iter == 2
    wanted = {"mIoU", "mAcc", "aAcc"} if name.startswith("mmseg") else {"AP_box", "AP_mask"}
    assert wanted <= set(result["metrics"])
    assert all(0 <= value <= 100 for value in result["metrics"].values())
    assert list(tmp_path.glob("*/vis_data/scalars.json")), "its curves lie in the folder of an earlier run"

    # Training started at these weights (the hook compared them) and moved all of them: nothing is frozen.
    trained = runner.model.backbone.state_dict()
    for key, before in teacher.state_dict.items():
        if key.endswith("num_batches_tracked"):
            continue
        assert trained[key].shape == before.shape
        if key.endswith("conv1.weight") or "running_mean" in key:
            assert not torch.equal(trained[key], before), f"{key} did not move"

    metrics = openmmlab.evaluate(
        shrink(load(name, tmp_path)), str(tmp_path / "iter_2.pth"), data_root=str(scenes(LAYOUT[name]))
    )
    tested = read_result(tmp_path / "test_result.json")
    assert tested["metrics"] == result["metrics"]
    assert (tested["pretraining"], tested["backbone_sha256"]) == ("slotcon", result["backbone_sha256"])
    assert tested["config_sha256"] == result["config_sha256"]
    assert isinstance(metrics, dict)


@pytest.mark.parametrize(("longer", "same"), SAME_BUT_LONGER.items())
def test_2x_is_1x_with_every_count_doubled(longer, same, tmp_path):
    one, two = load(same, tmp_path).to_dict(), load(longer, tmp_path).to_dict()
    assert two["train_cfg"]["max_iters"] == 2 * one["train_cfg"]["max_iters"]
    assert two["param_scheduler"][1]["milestones"] == [2 * m for m in one["param_scheduler"][1]["milestones"]]
    assert two["param_scheduler"][0] == one["param_scheduler"][0]
    for key in set(one) - {"train_cfg", "param_scheduler"}:
        assert two[key] == one[key]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_origin_of_its_backbone(tmp_path, scenes, pretrained, monkeypatch):
    first = shrink(load("mmseg/fcn_r18_camvid", tmp_path))
    first.randomness = {"seed": 7}
    runner = openmmlab.train(first, backbone=str(pretrained(18)), data_root=str(scenes("camvid")), pretraining="mine")
    before = read_result(tmp_path / "result.json")
    (saver,) = (hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    assert isinstance(saver.file_backend, AtomicLocalBackend)

    def longer() -> Config:
        cfg = shrink(load("mmseg/fcn_r18_camvid", tmp_path))
        cfg.train_cfg.max_iters = 4
        return cfg

    with monkeypatch.context() as patch:
        patch.setattr(TransferRun, "after_train_iter", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunStoppedError, match=r"SIGTERM after iteration 3, .*--resume"):
            openmmlab.train(longer(), data_root=str(scenes("camvid")), resume=True)
    runner = openmmlab.train(longer(), data_root=str(scenes("camvid")), resume=True)
    after = read_result(tmp_path / "result.json")
    assert runner.iter == after["iterations"] == 4
    for field in ("pretraining", "backbone_sha256", "seed"):
        assert after[field] == before[field]
    assert (after["pretraining"], after["seed"]) == ("mine", 7)
    assert after["wall_time_s"] > before["wall_time_s"]


@pytest.mark.slow
def test_a_run_begins_with_the_model_of_another(tmp_path, scenes, pretrained):
    data = str(scenes("camvid"))
    openmmlab.train(shrink(load("mmseg/fcn_r18_camvid", tmp_path / "a")), str(pretrained(18)), data, pretraining="mine")
    second = shrink(load("mmseg/fcn_r18_camvid", tmp_path / "b"))
    second.load_from = str(tmp_path / "a/iter_2.pth")
    openmmlab.train(second, data_root=data)
    one, two = (read_result(tmp_path / name / "result.json") for name in "ab")
    assert (one["pretraining"], two["pretraining"]) == ("mine", "mine")
    assert two["backbone_sha256"] not in (None, one["backbone_sha256"])

    used = shrink(load("mmseg/fcn_r18_camvid", tmp_path / "a"))
    with pytest.raises(UserError, match="--overwrite"):
        openmmlab.train(used, data_root=data)
    used.randomness = {"seed": 5}
    with pytest.raises(UserError, match="seed 0, and 5 is asked for"):
        openmmlab.train(used, data_root=data, resume=True)


@pytest.mark.slow
def test_random_initialisation_and_accumulation(tmp_path, scenes):
    cfg = shrink(load("mmseg/fcn_r18_camvid", tmp_path))
    cfg.auto_scale_lr.base_batch_size = 4  # two passes of two images a step
    runner = openmmlab.train(cfg, data_root=str(scenes("camvid")))
    result = read_result(tmp_path / "result.json")
    assert (result["pretraining"], result["backbone_sha256"]) == ("random", None)
    assert runner.iter == 4  # passes; two optimiser steps
    assert runner.optim_wrapper._accumulative_counts == 2
