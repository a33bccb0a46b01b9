"""What mmengine accepts in a config beside the forms that the recipes here have."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict

from slotcon_plugin.engine import SafeCheckpointHook
from slotcon_plugin.errors import UserError

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.backbone import FROM_RANDOM
from slotcon_plugin.transfer.mm_data import check_data, class_names, datasets_of, evaluators_of, relocate
from slotcon_plugin.transfer.mm_hooks import TransferRun
from slotcon_plugin.transfer.mm_labels import follow_labels
from slotcon_plugin.transfer.mm_model import take_named_backbone

from .test_mm_parts import CONFIGS, load


def test_a_config_in_mmengines_short_forms_is_trained(camvid, tmp_path):
    """A single schedule, a loop by by_epoch, no default hooks, a list of evaluators; and the batch accumulated."""
    camvid.auto_scale_lr.base_batch_size = 4
    camvid.param_scheduler = dict(type="LinearLR", start_factor=0.5, by_epoch=False, end=2)
    camvid.train_cfg = dict(by_epoch=True, max_epochs=1)
    camvid.train_dataloader.sampler = dict(type="DefaultSampler")
    camvid.pop("default_hooks")
    camvid.val_evaluator = [camvid.val_evaluator]
    runner = openmmlab.train(camvid)
    result = read_result(tmp_path / "run/result.json")
    assert result["metrics"]["mIoU"] >= 0 and result["iterations"] == runner.iter == 2
    assert any(isinstance(hook, SafeCheckpointHook) for hook in runner.hooks)
    assert (tmp_path / "run/epoch_1.pth").is_file()


def test_files_are_found_without_a_data_root(camvid, scenes):
    for dataset in datasets_of(camvid):
        root = Path(dataset.pop("data_root"))
        dataset.data_prefix = {key: str(root / part) for key, part in dataset.data_prefix.items()}
    check_data(camvid)
    camvid.val_dataloader.dataset.data_prefix.seg_map_path += "_elsewhere"
    with pytest.raises(UserError, match=r"_elsewhere does not exist\. Expected below \."):
        check_data(camvid)
    coco = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    relocate(coco, scenes("coco"))
    for dataset in datasets_of(coco):
        root = Path(dataset.pop("data_root"))
        dataset.ann_file, dataset.data_prefix.img = str(root / dataset.ann_file), str(root / dataset.data_prefix.img)
    check_data(coco)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"type": "BaseSegDataset"},
            r"BaseSegDataset: the config does not say which classes .* metainfo=dict\(classes",
        ),
        ({"type": "BaseSegDataset", "metainfo": None}, "BaseSegDataset: the config does not say which classes"),
        ({"type": "NoSuchDataset"}, r"NoSuchDataset: mmseg has no data set of this type.*custom_imports"),
    ],
)
def test_classes_that_nobody_says(dataset, message, camvid):
    with pytest.raises(UserError, match=message):
        class_names(ConfigDict(dataset))


@pytest.mark.parametrize(
    "init_cfg", [[dict(type="Kaiming", layer="Conv2d"), dict(type="Pretrained", checkpoint="a.pth")], [], None]
)
def test_initializers_may_be_a_list(init_cfg):
    model = ConfigDict(backbone=dict(init_cfg=init_cfg))
    assert take_named_backbone(model) == ("a.pth" if init_cfg else None)
    assert model.backbone.init_cfg is None


def test_half_an_evaluation_is_named_before_the_run(camvid):
    camvid.val_evaluator = None
    with pytest.raises(
        UserError, match=r"has no val_evaluator: expected all of val_dataloader, val_cfg, val_evaluator"
    ):
        openmmlab.train(camvid)
    assert not Path(camvid.work_dir).exists()


@pytest.mark.parametrize("seed", [-1, 5_000_000_000])
def test_what_is_no_seed_is_refused_before_the_run(seed, camvid):
    camvid.randomness = dict(seed=seed)
    with pytest.raises(UserError, match=r"randomness\.seed: expected a whole number"):
        openmmlab.train(camvid)
    assert not Path(camvid.work_dir).exists()


@pytest.mark.parametrize("wrap", [lambda one: [one], lambda one: dict(type="Evaluator", metrics=[one])])
def test_evaluators_in_a_list_follow_the_data(wrap, scenes, tmp_path):
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    cfg.val_evaluator = wrap(cfg.val_evaluator)
    relocate(cfg, "elsewhere")
    (metric,) = evaluators_of(cfg, "val")
    assert metric.ann_file == "elsewhere/annotations/instances_val2017.json"
    own, source, root = load("mmdet/rcnn_r18_fpn_own"), scenes("coco"), tmp_path / "own"
    for split in ("train", "val"):
        shutil.copytree(source / f"{split}2017", root / f"images/{split}")
        (root / "annotations").mkdir(exist_ok=True)
        shutil.copy(source / f"annotations/instances_{split}2017.json", root / f"annotations/{split}.json")
    own.val_evaluator, own.test_evaluator = wrap(own.val_evaluator), None
    relocate(own, root)
    follow_labels(own)
    assert evaluators_of(own, "val")[0].ann_file == str(root / "annotations/val.json")


METRIC = {"type": "CocoMetric", "metric": "bbox"}


@pytest.mark.parametrize("evaluator", [METRIC, [METRIC], {"metrics": [METRIC]}], ids=["one", "list", "Evaluator"])
@pytest.mark.parametrize(("found", "ap"), [({"coco/bbox_mAP": 0.41}, 41.0), ({}, 0.0)])
@pytest.mark.parametrize("measured", [False, True])
def test_a_detector_that_was_not_measured_is_not_one_that_finds_nothing(found, ap, measured, evaluator, tmp_path):
    judged = {"dataset": {"data_root": str(tmp_path / "judged")}}
    learned = {"dataset": {"data_root": str(tmp_path / "learned")}}
    cfg = Config({"val_evaluator": evaluator, "train_dataloader": learned, "val_dataloader": judged})
    hook = TransferRun("mmdet_boxes", Config(filename=str(CONFIGS / "mmdet/rcnn_r18_fpn_own.py")), FROM_RANDOM, seed=0)
    validations = []

    def validate() -> None:
        validations.append(found)
        hook.after_val_epoch(runner, found)

    repeated = SimpleNamespace(dataset=SimpleNamespace(datasets=[range(4), range(3)]), times=3)
    runner = SimpleNamespace(cfg=cfg, work_dir=tmp_path, iter=2, val_loop=SimpleNamespace(run=validate))
    runner.train_dataloader = SimpleNamespace(dataset=repeated)
    runner.val_dataloader = SimpleNamespace(dataset=range(2))
    if measured:
        validate()
    hook.after_train(runner)
    result = read_result(tmp_path / "result.json")
    assert result["metrics"]["AP_box"] == ap
    assert (result["data"], result["num_images"]) == ("judged", [7, 2])
    assert len(validations) == 1


def test_predictions_for_a_server_are_no_result(tmp_path):
    hook = TransferRun("mmdet_boxes", Config(), FROM_RANDOM, seed=0, test_path=tmp_path / "test_result.json")
    runner = SimpleNamespace(cfg=Config({"test_evaluator": {**METRIC, "format_only": True}}))
    (tmp_path / "test_result.json").write_text("of a test")
    hook.after_test_epoch(runner, {})
    assert (tmp_path / "test_result.json").read_text() == "of a test"
