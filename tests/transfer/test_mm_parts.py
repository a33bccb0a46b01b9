"""What surrounds a run in mm: recipes, batch, input convention, metrics, what it is resumed with."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from slotcon_plugin.engine.batch import fit_batch
from slotcon_plugin.errors import RunStoppedError, UserError
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.backbone import Origin, check_arrived, prepare_backbone
from slotcon_plugin.transfer.mm_data import datasets_of
from slotcon_plugin.transfer.mm_hooks import TransferRun, nothing_detected, tidy_metrics
from slotcon_plugin.transfer.mm_model import input_convention

from .conftest import CONFIGS, load

# config -> (crop, batch, steps, lr, weight decay, milestones or poly power, head channels, dilation)
RECIPES = {
    "mmseg/fcn_r50_voc12aug": ((513, 513), 16, 30000, 0.003, 1e-4, [21000, 27000], 256, 6),
    "mmseg/fcn_r50_cityscapes": ((769, 769), 16, 90000, 0.01, 1e-4, [63000, 81000], 256, 6),
    "mmseg/fcn_r50_ade20k": ((512, 512), 16, 80000, 0.01, 5e-4, 0.9, 512, 1),
}


@pytest.mark.parametrize("name", RECIPES)
def test_segmentation_recipes_are_the_papers(name):
    cfg = load(name)
    crop, batch, steps, lr, decay, schedule, channels, dilation = RECIPES[name]
    assert cfg.model.data_preprocessor.size == crop
    assert [t.crop_size for d in list(datasets_of(cfg))[:1] for t in d.pipeline if t.type == "RandomCrop"] == [crop]
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_cfg.max_iters == steps
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("SGD", lr, 0.9, decay)
    (scheduler,) = cfg.param_scheduler
    assert scheduler.get("milestones", scheduler.get("power")) == schedule
    head = cfg.model.decode_head
    assert (head.channels, head.get("num_convs", 2), head.get("dilation", 1)) == (channels, 2, dilation)
    if name.endswith("ade20k"):
        assert (scheduler.eta_min, cfg.model.auxiliary_head.loss_decode.loss_weight) == (1e-4, 0.4)
        assert cfg.model.backbone.strides == (1, 2, 1, 1)
    else:
        assert cfg.model.auxiliary_head is None
        assert head.align_corners
        assert not head.concat_input
        assert cfg.model.backbone.strides == (1, 2, 2, 1)
    slide = {"mode": "slide", "crop_size": (769, 769), "stride": (513, 513)}
    assert dict(cfg.model.test_cfg) == (slide if "cityscapes" in name else {"mode": "whole"})


def test_detection_recipe_is_the_papers():
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    model = cfg.model
    parts = (model.backbone, model.neck, model.roi_head.bbox_head, model.roi_head.mask_head)
    assert [part.norm_cfg.type for part in parts] == ["SyncBN"] * 4
    assert (model.backbone.frozen_stages, model.backbone.norm_eval) == (-1, False)
    assert model.roi_head.bbox_head.type == "Shared4Conv1FCBBoxHead"
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert (cfg.train_cfg.max_iters, cfg.auto_scale_lr.base_batch_size) == (90000, 16)
    assert cfg.param_scheduler[1].milestones == [60000, 80000]
    resize = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == "RandomChoiceResize")
    assert [short for _, short in resize.scales] == [640, 672, 704, 736, 768, 800]


@pytest.mark.parametrize("path", CONFIGS.glob("mm*/*_r[15]*.py"), ids=lambda p: p.stem)
def test_every_config_feeds_the_network_what_the_pretraining_saw(path):
    cfg = Config.fromfile(path)
    assert input_convention(cfg.model) == {
        "colour_order": "RGB",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "stem": "7x7",
        "stride_in_1x1": False,
    }
    assert cfg.auto_scale_lr.base_batch_size


def test_accumulation_stretches_what_mmengine_counts_in_passes():
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    fit_batch(cfg, processes=1, mode="accumulate")  # 1 x 2 images of 16
    assert cfg.optim_wrapper.accumulative_counts == 8
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (8 * 90000, 8 * 10000)
    assert cfg.param_scheduler[0].end == 8 * 1000
    assert cfg.param_scheduler[1].milestones == [8 * 60000, 8 * 80000]
    assert cfg.default_hooks.checkpoint.interval == 8 * 10000


def test_scaled_lr_sees_as_many_images():
    cfg = load("mmseg/fcn_r50_ade20k")
    fit_batch(cfg, processes=2, mode="scale-lr")  # 2 x 4 of 16
    assert "accumulative_counts" not in cfg.optim_wrapper
    assert cfg.optim_wrapper.optimizer.lr == 0.005
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler[0].end) == (160000, 160000)


def test_the_recipes_own_hardware_changes_nothing():
    cfg, same = load("mmdet/mask_rcnn_r50_fpn_1x_coco"), load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    fit_batch(cfg, processes=8, mode="accumulate")
    assert cfg.to_dict() == same.to_dict()


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("mmseg")])
def test_eight_gpus_divide_a_batch_written_for_four(name):
    cfg, same = load(name), load(name)
    assert cfg.train_dataloader.batch_size == 4
    fit_batch(cfg, processes=8)
    assert cfg.train_dataloader.batch_size == 2
    same.train_dataloader.batch_size = 2
    assert cfg.to_dict() == same.to_dict() | {"auto_scale_lr": {**same.auto_scale_lr, "enable": False}}


def test_metrics_have_one_naming():
    found = {"coco/bbox_mAP": 0.41, "coco/bbox_mAP_50": 0.612, "coco/segm_mAP_s": -1.0, "coco/segm_mAP": 0.37}
    assert tidy_metrics(found) == {"AP_box": 41.0, "AP50_box": 61.2, "AP_mask": 37.0}
    assert tidy_metrics({"mIoU": 22.5, "aAcc": 65.0, "mAcc": float("nan"), "time": 1.0}) == {"mIoU": 22.5, "aAcc": 65.0}
    assert tidy_metrics({"coco/AR@100": 0.173, "coco/AR@300": 0.2, "coco/AR_s@1000": 0.1}) == {"AR100_box": 17.3}
    others = {"pascal_voc/mAP": np.float32(0.5), "pascal_voc/AP50": float("nan"), "pascal_voc/text": "a b"}
    assert tidy_metrics(others) == {"pascal_voc/mAP": 0.5}
    assert tidy_metrics({**others, "mIoU": 22.5}) == {"mIoU": 22.5}
    nothing = nothing_detected([{"metric": ["segm", "proposal"]}, {"metric": None}, {"iou_metrics": ["mIoU"]}])
    assert nothing == {"AP_mask": 0.0, "AP50_mask": 0.0, "AP75_mask": 0.0, "AR100_box": 0.0}


def test_weights_that_did_not_arrive_are_noticed(pretrained):
    from slotcon_plugin.convert import read_checkpoint

    teacher = read_checkpoint(pretrained(18))
    origin = Origin("slotcon", teacher.meta["backbone_sha256"], Path("backbone.pth"))
    check_arrived(teacher.state_dict, origin)
    changed = {**teacher.state_dict, "layer4.1.bn2.weight": teacher.state_dict["layer4.1.bn2.weight"] + 1e-3}
    with pytest.raises(ValueError, match=r"does not hold the weights of backbone\.pth"):
        check_arrived(changed, origin)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.data_preprocessor.update(mean=[0.485, 0.456, 0.406]), "mean: the weights want"),
        (lambda m: m.data_preprocessor.update(mean=None, std=None), r"config has \[0.0, 0.0, 0.0\]"),
        (lambda m: m.data_preprocessor.update(bgr_to_rgb=False), "the weights want RGB, the config has BGR"),
        (lambda m: m.backbone.update(depth=50), "wants depth=50, the checkpoint is ResNet-18"),
    ],
)
def test_unfit_configs_stop_before_training(change, message, tmp_path, pretrained):
    cfg = load("mmseg/fcn_r18_camvid")
    cfg.work_dir = str(tmp_path)
    change(cfg.model)
    with pytest.raises(ValueError, match=message):
        openmmlab.use_backbone(cfg, str(pretrained(18)), None)


def test_other_backbones_than_resnets_are_not_asked_for_a_resnets_stem():
    model = load("mmseg/fcn_r18_camvid").model
    model.backbone = {"type": "mmdet.SwinTransformer"}
    assert set(input_convention(model)) == {"colour_order", "mean", "std"}


def test_a_backbone_is_not_evaluated_as_a_segmenter(camvid, pretrained):
    with pytest.raises(UserError, match=r"does not hold the model .*'backbone.conv1.weight' \(checkpoint has none"):
        openmmlab.evaluate(camvid, str(pretrained(18)))
    assert not Path(camvid.work_dir, "test_result.json").exists()


def test_a_run_in_other_steps_is_not_gone_on_with(camvid, tmp_path):
    """Twice the passes make half of the position: a run at its half would count as done."""
    again, camvid.train_dataloader.batch_size = copy.deepcopy(camvid), 2
    again.train_dataloader.batch_size, again.auto_scale_lr.base_batch_size = 1, 2
    camvid.auto_scale_lr.base_batch_size = 2
    openmmlab.train(camvid)
    with pytest.raises(UserError, match=r"counted in other steps now \(passes a step 1 -> 2\)\. Resume with"):
        openmmlab.train(again, resume=True, batch_mode="accumulate")


def test_a_run_by_epochs_that_was_stopped_within_one_goes_on_there(camvid, tmp_path, monkeypatch):
    """mmengine's loop begins the epoch anew and counts on: with accumulated passes it fails beyond its last."""
    done = []

    def note(hook, runner, *_, **__):
        done.append((runner.epoch, runner.iter, runner.optim_wrapper.get_lr()["lr"][0]))
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TransferRun, "after_train_iter", note)
    camvid.train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
    camvid.train_dataloader.sampler.type = "DefaultSampler"
    camvid.default_hooks.logger.log_metric_by_epoch = True
    camvid.default_hooks.checkpoint.update(by_epoch=True, interval=3)
    camvid.optim_wrapper.accumulative_counts, camvid.auto_scale_lr = 2, {}
    camvid.param_scheduler[0].end = 6
    again, straight = copy.deepcopy(camvid), copy.deepcopy(camvid)
    with pytest.raises(RunStoppedError, match="after iteration 4"):
        openmmlab.train(camvid)
    openmmlab.train(again, resume=True)
    resumed, done[:] = done[:], [None] * 3
    straight.work_dir = str(tmp_path / "straight")
    openmmlab.train(straight)
    assert resumed == done[3:]


def test_a_run_made_longer_has_the_rates_of_one_that_was_so_from_the_start(camvid, tmp_path, monkeypatch):
    rates = []

    def note(hook, runner, *_, **__):
        rates.append((runner.iter, runner.optim_wrapper.get_lr()["lr"]))

    monkeypatch.setattr(TransferRun, "before_train_iter", note)
    configs = [copy.deepcopy(camvid) for _ in range(3)]
    for cfg, length, name in zip(configs, (2, 5, 5), ("run", "run", "straight")):
        cfg.train_cfg.max_iters = cfg.param_scheduler[0].end = length
        cfg.work_dir = str(tmp_path / name)
        openmmlab.train(cfg, resume=length == 5 and name == "run")
    resumed, straight = rates[2:5], rates[5:]
    assert [number for number, _ in resumed] == [2, 3, 4] and resumed == straight[2:]


def test_a_run_that_gets_another_rate_has_it(camvid, tmp_path, monkeypatch, capfd):
    rates = []

    def note(hook, runner, *_, **__):
        rates.append((runner.iter, runner.optim_wrapper.get_lr()["lr"]))

    monkeypatch.setattr(TransferRun, "before_train_iter", note)
    camvid.train_cfg.max_iters = camvid.param_scheduler[0].end = 5
    camvid.default_hooks.checkpoint.interval = 2
    slower, other, straight = (copy.deepcopy(camvid) for _ in range(3))
    camvid.train_cfg.max_iters = 2
    openmmlab.train(camvid)
    for cfg in (slower, straight):
        cfg.optim_wrapper.optimizer.lr = 0.001
    straight.work_dir = str(tmp_path / "straight")
    other.optim_wrapper.optimizer = dict(type="AdamW", lr=0.001)
    with pytest.raises(UserError, match="the checkpoint's optimiser is SGD, the config's is AdamW"):
        openmmlab.train(other, resume=True)
    openmmlab.train(slower, resume=True)
    assert "optim_wrapper.optimizer.lr 0.01 -> 0.001" in capfd.readouterr().out
    openmmlab.train(straight)
    assert rates[2:5] == rates[7:]


def test_a_run_resumed_at_its_end_is_measured_again(camvid, tmp_path, scenes):
    again = copy.deepcopy(camvid)
    openmmlab.train(camvid)
    result = tmp_path / "run/result.json"
    before = read_result(result)
    result.unlink()  # as if it had been killed while it validated
    openmmlab.train(again, resume=True)
    after = read_result(result)
    assert before["metrics"]["mIoU"] > 0
    assert all(after[key] == before[key] for key in ("metrics", "iterations", "pretraining", "seed"))


def test_a_run_that_left_the_decoder_behind_is_another_column(camvid, pretrained, tmp_path, capfd):
    config, run = copy.deepcopy(camvid), tmp_path / "run"
    openmmlab.train(camvid, str(pretrained(18)), fpn=False)
    assert read_result(run / "result.json")["task"] == "mmseg_fcn_r18_camvid_no_fpn"
    again = copy.deepcopy(config)
    with pytest.raises(UserError, match="mmseg_fcn_r18_camvid_no_fpn"):
        openmmlab.train(again, str(pretrained(18)), resume=True)
    copy_of_training, _ = next(run.glob("*.py")).read_bytes(), capfd.readouterr()
    openmmlab.evaluate(config, str(run / "iter_2.pth"))
    assert read_result(run / "test_result.json")["task"] == "mmseg_fcn_r18_camvid_no_fpn"
    assert next(run.glob("*.py")).read_bytes() == copy_of_training, "of a test there is none"
    assert "is finished" not in "".join(capfd.readouterr())


def test_a_run_that_is_refused_puts_back_the_one_that_it_was_to_replace(camvid, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "iter_2.pth").write_bytes(b"of weeks")
    camvid.auto_scale_lr = dict(base_batch_size=7)
    with pytest.raises(UserError, match="7"):
        openmmlab.train(camvid, overwrite=True, batch_mode="accumulate")
    assert (run / "iter_2.pth").read_bytes() == b"of weeks"
    assert not list(tmp_path.glob("run.old*"))


def test_a_decoder_to_leave_behind_needs_a_checkpoint(camvid):
    with pytest.raises(UserError, match="--no-fpn leaves out the decoder of a checkpoint, and no backbone is given"):
        openmmlab.train(camvid, fpn=False)


@pytest.mark.parametrize("way", ["backbone", "load_from", "folder", "link"])
def test_weights_in_a_work_dir_that_would_be_set_aside_are_refused(way, camvid, pretrained, tmp_path):
    run, link = tmp_path / "run", tmp_path / "link.pth"
    run.mkdir()
    given = shutil.copy(pretrained(18), run / "iter_2.pth")
    link.symlink_to(given)
    if way == "load_from":
        camvid.load_from = str(given)
    backbone = {"backbone": str(given), "folder": str(run), "link": str(link)}.get(way)
    with pytest.raises(UserError, match=r"would set .*run aside, and the weights to start from, .* lie in it: give"):
        openmmlab.train(camvid, backbone, overwrite=True)
    assert given.exists() and not (tmp_path / "run.old1").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resume": True}, "no checkpoint in .*, and no --backbone"),
        ({"backbone": "a.pth"}, "brings a backbone of its own: leave out a.pth"),
    ],
)
def test_runs_do_not_start_from_weights_that_nobody_meant(camvid, given, message):
    if "backbone" in given:
        camvid.load_from = "iter_2.pth"
    with pytest.raises(UserError, match=message):
        openmmlab.train(camvid, **given)


@pytest.mark.parametrize("name", ["mmseg/fpn_r18_own", "mmdet/rcnn_r18_fpn_own"])
def test_random_weights_to_compare_with_start_as_pretrainings_do(name):
    """mmseg's and mmdet's ResNets would start as identities, which is worth two points by itself."""
    backbone = MODELS.build(load(name).model.backbone)
    backbone.init_weights()
    assert all(block.norm2.weight.eq(1).all() for block in backbone.layer4)


def test_the_decoder_of_another_run_does_not_come_with_its_config(camvid, pretrained):
    """As the copy in that run's work dir names it."""
    own = {"type": "Normal", "std": 0.01, "override": {"name": "conv_seg"}}
    camvid.model.decode_head.init_cfg = [
        own,
        {"type": "Pretrained", "checkpoint": "theirs.pth", "prefix": "decode_head."},
    ]
    camvid.model.neck = dict(type="FPN", init_cfg={"type": "Pretrained", "checkpoint": "theirs.pth", "prefix": "neck."})
    openmmlab.use_backbone(camvid, None, None)
    assert camvid.model.decode_head.init_cfg == [own] and camvid.model.neck.init_cfg == []


def test_a_name_without_a_backbone_is_one_of_random_weights(tmp_path):
    args = (None, tmp_path / "b.pth", "mmseg", tmp_path / "c.py")
    for name, called in ((None, "random"), ("random", "random"), ("random_plain", "random_plain")):
        origin, meta = prepare_backbone(*args, name)
        assert (origin.pretraining, origin.sha256, meta) == (called, None, {})
    with pytest.raises(UserError, match="is called 'randomized', but no backbone is given"):
        prepare_backbone(*args, "randomized")


def test_deep_stem_is_noticed(tmp_path, pretrained):
    """DenseCL#3: mmseg's default ResNetV1c has another stem; weights of a plain ResNet would load without it."""
    cfg = load("mmseg/fcn_r18_camvid")
    cfg.work_dir = str(tmp_path)
    cfg.model.backbone.type = "ResNetV1c"
    with pytest.raises(ValueError, match="stem"):
        openmmlab.use_backbone(cfg, str(pretrained(18)), None)
    assert not (tmp_path / "backbone.pth").exists()
