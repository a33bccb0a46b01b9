"""Data sets of mm runs: put elsewhere, and checked before anything is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.mm_data import check_data, datasets_of, relocate

from .conftest import load


def test_relocated_data_sets_are_complete(scenes):
    for name, layout in (("mmdet/mask_rcnn_r50_fpn_1x_coco", "coco"), ("mmseg/fcn_r50_voc12aug", "voc")):
        cfg = load(name)
        relocate(cfg, scenes(layout))
        check_data(cfg)
    assert len(list(datasets_of(cfg))) == 4  # train, aug, val, test
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    relocate(cfg, "elsewhere")
    assert cfg.val_evaluator.ann_file == "elsewhere/annotations/instances_val2017.json"


def broken(name: str, root: Path, change) -> Config:
    cfg = load(name)
    relocate(cfg, root)
    change(cfg)
    return cfg


@pytest.mark.parametrize(
    ("name", "layout", "change", "message"),
    [
        ("mmseg/fcn_r50_ade20k", "camvid", lambda c: None,
         r"images/training does not exist. Expected below .*training,validation"),
        ("mmseg/fcn_r50_ade20k", "ade20k", lambda c: c.model.decode_head.update(num_classes=10),
         r"model.decode_head.num_classes is 10, ADE20KDataset has 150 classes"),
        ("mmdet/mask_rcnn_r50_fpn_1x_coco", "coco", lambda c: c.model.roi_head.mask_head.update(num_classes=3),
         r"model.roi_head.mask_head.num_classes is 3, CocoDataset has 80 classes"),
        ("mmseg/fcn_r18_camvid", "plain", lambda c: None, r"images/test does not exist"),
    ],
)  # fmt: skip
def test_data_errors_name_the_path_and_the_layout(name, layout, change, message, scenes):
    with pytest.raises(ValueError, match=message):
        check_data(broken(name, scenes(layout), change))


def test_masks_with_foreign_indices_are_named(scenes):
    cfg = load("mmseg/fcn_r18_camvid")
    relocate(cfg, scenes("camvid"))
    few = ["a", "b", "c"]
    for dataset in datasets_of(cfg):
        dataset.metainfo.classes = few
    cfg.model.decode_head.num_classes = 3
    with pytest.raises(ValueError, match=r"scene_\d+.png has index \d+, the config has 3 classes .* ignores .11."):
        check_data(cfg)


def test_categories_unknown_to_the_config_are_named(scenes, tmp_path):
    for part in ("train2017", "val2017"):
        (tmp_path / part).mkdir()
    source = json.loads((scenes("coco") / "annotations/instances_val2017.json").read_text())
    source["categories"].append({"id": 999, "name": "unicorn"})
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(source))
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    relocate(cfg, tmp_path)
    with pytest.raises(ValueError, match=r"categories \['unicorn'\] that are not among the config's 80 classes"):
        check_data(cfg)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda found: found["categories"].reverse(),
            r"categories\[0\] of .*2017\.json is 'toothbrush', class 0 of the conf",
        ),
        (
            lambda found: found["categories"].pop(3),
            r"categories\[3\] of .* is 'airplane', class 3 of the config is 'motorcycle'",
        ),
        (lambda found: found["categories"].pop(), r"categories\[79\] of .* is None, class 79 .* is 'toothbrush'"),
        (lambda found: found["categories"][0].update(name="x"), r"categories \['x'\] that are not among"),
    ],
)
def test_labels_that_mmdet_would_number_otherwise_are_refused(split, edit, message, scenes, tmp_path):
    cfg = coco_with(scenes, tmp_path, {split: edit})
    with pytest.raises(UserError, match=message):
        check_data(cfg)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda found: found["annotations"][3].update(id=0), "1 of .* cannot be judged, the first has the id 0"),
        (lambda found: found["annotations"][3].pop("iscrowd"), "1 of .* cannot be judged, the first has no 'iscrowd'"),
    ],
)
def test_a_truth_that_cannot_be_judged_by_is_refused(edit, message, scenes, tmp_path):
    check_data(coco_with(scenes, tmp_path, {"train": edit}))
    with pytest.raises(UserError, match=message):
        check_data(coco_with(scenes, tmp_path, {"val": edit}))


def coco_with(scenes, root: Path, edits: dict) -> Config:
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir(exist_ok=True)
        (root / "annotations").mkdir(exist_ok=True)
        found = json.loads((scenes("coco") / f"annotations/instances_{split}2017.json").read_text())
        edits.get(split, lambda _: None)(found)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(found))
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    relocate(cfg, root)
    return cfg


def test_a_cut_annotation_file_is_named(scenes, tmp_path):
    cfg = load("mmdet/mask_rcnn_r50_fpn_1x_coco")
    whole = scenes("coco")
    for folder in ("train2017", "val2017"):
        (tmp_path / folder).symlink_to(whole / folder)
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        text = (whole / f"annotations/instances_{split}2017.json").read_text()
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(text[: len(text) // 2])
    relocate(cfg, tmp_path)
    with pytest.raises(UserError, match=r"instances_train2017\.json is not a complete COCO annotation file"):
        check_data(cfg)
