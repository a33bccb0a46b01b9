"""Configs for data of one's own: classes, heads, masks and files follow from the labels."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slotcon_plugin.errors import UserError
from slotcon_plugin.results import read_result

from .own_labels import INCOMPLETE, change
from .shrink import shrink

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from slotcon_plugin.transfer import mm_labels, openmmlab, own_boxes
from slotcon_plugin.transfer.mm_data import class_names, datasets_of
from slotcon_plugin.transfer.mm_labelled import LabelledPhotosDataset
from slotcon_plugin.transfer.mm_labels import follow_labels
from slotcon_plugin.transfer.mm_photo import LoadPhoto

from .test_mm_configs import load

CLASSES = ["crate", "ball"]  # not in the order of the ids


def prepared(name: str, root: Path, tmp_path: Path):
    cfg = load(name, tmp_path / "run")
    openmmlab._prepare(cfg, str(root))
    return cfg


def test_a_detectors_classes_are_the_categories_in_the_order_of_its_labels(boxes, tmp_path):
    cfg = prepared("mmdet/rcnn_r18_fpn_own", boxes, tmp_path)
    assert all(list(class_names(dataset)) == CLASSES for dataset in datasets_of(cfg))
    head = cfg.model.roi_head
    assert (head.bbox_head.num_classes, head.mask_head.num_classes) == (2, 2)
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(boxes / "annotations/val.json")
    dataset = openmmlab.Runner.build_dataloader({**cfg.train_dataloader, "num_workers": 0, "persistent_workers": False})
    labels = [i["bbox_label"] for n in range(4) for i in dataset.dataset.get_data_info(n)["instances"]]
    stored = [a["category_id"] for a in json.loads((boxes / "annotations/train.json").read_text())["annotations"]]
    assert [CLASSES[label] for label in labels] == [{7: "crate", 3: "ball"}[number] for number in stored]


def test_boxes_without_outlines_make_a_detector_without_masks(boxes, tmp_path):
    for split in ("train", "val"):
        change(boxes, split, lambda found: [a.update(segmentation=[]) for a in found["annotations"]])
    cfg = prepared("mmdet/rcnn_lite0_fpn_own", boxes, tmp_path)
    assert cfg.model.roi_head.mask_head is None and cfg.model.roi_head.bbox_head.num_classes == 2
    assert not any(step.get("with_mask") for dataset in datasets_of(cfg) for step in dataset.pipeline)
    openmmlab.train(shrink(load("mmdet/rcnn_lite0_fpn_own", tmp_path / "run")), data_root=str(boxes))
    assert set(read_result(tmp_path / "run/result.json")["metrics"]) >= {"AP_box", "AP50_box"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_single_box_without_an_outline_makes_a_detector_without_masks(split, boxes, tmp_path, monkeypatch):
    change(boxes, split, lambda found: found["annotations"][1].pop("segmentation"))
    said = []
    monkeypatch.setattr(mm_labels, "print_log", lambda text, *_: said.append(text))
    cfg = prepared("mmdet/rcnn_r18_fpn_own", boxes, tmp_path)
    assert re.search(rf"without masks: there is no outline in 1 of \d+ annotations of .*{split}\.json$", said[0])
    assert cfg.model.roi_head.mask_head is None and cfg.val_evaluator.metric == "bbox"
    assert not any(step.get("with_mask") for dataset in datasets_of(cfg) for step in dataset.pipeline)


@pytest.mark.slow
def test_a_detector_with_masks_trains_from_a_checkpoint(boxes, tmp_path, pretrained):
    cfg = shrink(load("mmdet/rcnn_r18_fpn_own", tmp_path / "run"))
    openmmlab.train(cfg, backbone=str(pretrained(18)), data_root=str(boxes))
    result = read_result(tmp_path / "run/result.json")
    assert result["pretraining"] == "slotcon" and set(result["metrics"]) >= {"AP_box", "AP_mask"}
    (again,) = (tmp_path / "run").glob("rcnn_r18_fpn_own.py")
    cfg = openmmlab.Config.fromfile(again)
    cfg.work_dir, cfg.launcher = str(tmp_path / "run"), "none"
    openmmlab.evaluate(cfg, str(tmp_path / "run/iter_2.pth"))
    assert read_result(tmp_path / "run/test_result.json")["metrics"] == result["metrics"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda found: found["categories"].reverse(),
            r"val\.json has other categories .* in another order\. All splits",
        ),
        (lambda found: found["categories"].append({"id": 9, "name": "kite"}), r"val\.json .*: \[\(9, 'kite'\)\]"),
        (
            lambda found: [
                *(category.update(id=str(category["id"])) for category in found["categories"]),
                *(annotation.update(category_id=str(annotation["category_id"])) for annotation in found["annotations"]),
            ],
            r"val\.json has other categories .*\('3', 'ball'\).*\(7, 'crate'\)\]\. All splits need the same list",
        ),
        *INCOMPLETE,
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(edit, message, boxes, tmp_path):
    change(boxes, "val", edit)
    with pytest.raises(UserError, match=message):
        prepared("mmdet/rcnn_r18_fpn_own", boxes, tmp_path)


def test_boxes_that_mmdet_leaves_out_are_counted(boxes, tmp_path, monkeypatch):
    change(boxes, "train", lambda found: found["annotations"][2].update(bbox=[500, 3, 10, 10]))
    said = []
    monkeypatch.setattr(own_boxes, "print_log", lambda text, *_: said.append(text))
    prepared("mmdet/rcnn_r18_fpn_own", boxes, tmp_path)
    assert re.match(
        r"1 of \d+ annotations of .*train\.json are .* outside .*\[500, 3, 10, 10\].*: mmdet leaves them out", said[0]
    )


def two_without_objects(found):
    first = {image["id"] for image in found["images"][:2]}
    found["annotations"] = [one for one in found["annotations"] if one["image_id"] not in first]


def test_photos_that_mmdet_does_not_train_on_are_counted(boxes, tmp_path, monkeypatch):
    change(boxes, "train", two_without_objects)
    said = []
    monkeypatch.setattr(mm_labels, "print_log", lambda text, *_: said.append(text))
    cfg = prepared("mmdet/rcnn_r18_fpn_own", boxes, tmp_path)
    of_all = f"of {len(list((boxes / 'images/train').iterdir()))} photos of {boxes}/annotations/train.json have"
    rule = "not trained on (--cfg-options train_dataloader.dataset.filter_cfg"
    assert said[0] == f"2 {of_all} no object: {rule}.filter_empty_gt=False keeps them)"
    assert len(said) == 2 and "classes of" in said[1]
    cfg = load("mmdet/rcnn_r18_fpn_own", tmp_path / "run")
    cfg.merge_from_dict({"train_dataloader.dataset.filter_cfg": dict(filter_empty_gt=False, min_size=150)})
    openmmlab._prepare(cfg, str(boxes))
    assert re.match(
        rf"(\d+) of \1 photos .* have a side of less than 150 pixels: .*{re.escape(rule)}\.min_size=0", said[2]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmdet/rcnn_r18_fpn_own", "mmdet/rcnn_lite0_fpn_own"])
def test_photos_without_objects_can_be_trained_on(name, boxes, tmp_path):
    """Whole batches of them, too."""

    def two_of_three(found):
        two_without_objects(found)
        found["images"] = found["images"][:3]
        found["annotations"] = [one for one in found["annotations"] if one["image_id"] == found["images"][2]["id"]]

    change(boxes, "train", two_of_three)
    cfg = shrink(load(name, tmp_path / "run"))
    cfg.merge_from_dict({"train_dataloader.dataset.filter_cfg.filter_empty_gt": False})
    cfg.train_dataloader.batch_size = cfg.auto_scale_lr.base_batch_size = 1
    cfg.train_cfg.update(max_iters=3, val_interval=3)
    openmmlab.train(cfg, data_root=str(boxes))
    assert read_result(tmp_path / "run/result.json")["num_images"][0] == 3


def test_photos_are_read_as_their_labels_were_drawn(tmp_path):
    """Upright by their EXIF, the upper byte of 16 bits; OpenCV, mmcv's reader, has other ideas of some of them."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:2] = (250, 10, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    seen = LoadPhoto()(dict(img_path=str(tmp_path / "turned.png")))
    assert seen["img"].shape == (12, 8, 3) and seen["img_shape"] == seen["ori_shape"] == (12, 8)
    assert seen["img"][5, -1].tolist() == [30, 10, 250], "BGR, turned"
    Image.fromarray(np.full((4, 4), 770, np.uint16)).save(tmp_path / "deep.png")
    assert LoadPhoto()(dict(img_path=str(tmp_path / "deep.png")))["img"].max() == 3


def test_a_missing_annotation_file_is_named_with_the_layout(boxes, tmp_path):
    (boxes / "annotations/val.json").unlink()
    with pytest.raises(
        UserError, match=r"annotations/val\.json does not exist\. Expected below .*images/\{train,val\}/"
    ):
        prepared("mmdet/rcnn_r18_fpn_own", boxes, tmp_path)


@pytest.mark.slow
def test_a_segmenter_trains_from_weights_of_timm(scenes, tmp_path, weights_of_timm):
    cfg, weights = shrink(load("mmseg/fcn_lite0_own", tmp_path / "run")), weights_of_timm("tf_efficientnet_lite0")
    openmmlab.train(cfg, backbone=str(weights), data_root=str(scenes("camvid")))
    assert 0 <= read_result(tmp_path / "run/result.json")["metrics"]["mIoU"] <= 100


@pytest.mark.parametrize("name", ["mmseg/fcn_lite0_own", "mmseg/fpn_r18_own"])
def test_every_rate_comes_down(name, tmp_path):
    """The floor of a schedule is one figure for all groups: it must lie below the backbone's share of the rate."""
    cfg = load(name, tmp_path)
    keys = cfg.optim_wrapper.get("paramwise_cfg", {}).get("custom_keys", {})
    slowest = min([1.0, *(key.get("lr_mult", 1.0) for key in keys.values())]) * cfg.optim_wrapper.optimizer.lr
    assert all(schedule.eta_min <= slowest / 10 for schedule in cfg.param_scheduler)
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters


def test_a_segmenters_classes_are_those_of_the_file(scenes, tmp_path):
    cfg = prepared("mmseg/fcn_lite0_own", scenes("camvid"), tmp_path)
    assert cfg.model.decode_head.num_classes == 11
    assert all(len(class_names(dataset)) == 11 for dataset in datasets_of(cfg))


def test_ignored_values_of_masks_become_255(scenes, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(scenes("camvid"), root)
    path = next((root / "annotations/train").glob("*.png"))
    mask = np.array(Image.open(path))
    mask[:7] = 11
    Image.fromarray(mask).save(path)
    classes = dict(classes=[str(number) for number in range(11)])
    pipeline = [dict(type="LoadAnnotations")]
    dataset = LabelledPhotosDataset(root, "train", metainfo=classes, pipeline=pipeline)
    index = [Path(dataset.get_data_info(n)["seg_map_path"]).name for n in range(len(dataset))].index(path.name)
    seen = dataset[index]["gt_seg_map"]
    assert (seen[:7] == 255).all() and (seen[7:] == mask[7:]).all()


def test_classes_that_no_file_names_are_counted_over_all_splits(scenes, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(scenes("camvid"), root)
    (root / "classes.txt").unlink()
    for path in (root / "annotations").rglob("*.png"):
        Image.fromarray(np.minimum(np.array(Image.open(path)), 3)).save(path)
    path = next((root / "annotations/val").glob("*.png"))
    Image.fromarray(np.full_like(np.array(Image.open(path)), 4)).save(path)
    assert prepared("mmseg/fpn_r18_own", root, tmp_path).model.decode_head.num_classes == 5


@pytest.mark.parametrize(("listing", "named"), [(None, "0"), ("background\nobject\n", "background")])
def test_masks_of_0_and_255_are_refused_before_the_run(listing, named, scenes, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(scenes("camvid"), root)
    (root / "classes.txt").write_text(listing) if listing else (root / "classes.txt").unlink()
    for path in (root / "annotations").rglob("*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask > 2, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match=rf"own/train: .* one class only \({named}; 255 is ignored\)"):
        prepared("mmseg/fpn_r18_own", root, tmp_path)


def test_a_mask_with_a_foreign_index_is_named_before_the_run(scenes, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(scenes("camvid"), root)
    for kind, suffix in (("images", ".jpg"), ("annotations", ".png")):  # more than anyone would take a sample of
        first = sorted((root / kind / "val").iterdir())[0]
        for number in range(40):
            shutil.copy(first, root / kind / "val" / f"more_{number:02}{suffix}")
    path = root / "annotations/val/more_17.png"
    Image.fromarray(np.full_like(np.array(Image.open(path)), 40)).save(path)
    with pytest.raises(UserError, match=rf"{path.name}: unknown class index 40: expected 0.*11 classes"):
        prepared("mmseg/fpn_r18_own", root, tmp_path)


def test_a_config_that_leaves_nothing_open_stays_as_it_is(scenes, tmp_path):
    cfg = load("mmseg/fcn_r18_camvid", tmp_path)
    before = cfg.pretty_text
    follow_labels(cfg)
    assert cfg.pretty_text == before
