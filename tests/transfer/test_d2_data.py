"""What a user of detectron2 may get wrong in a config file and its data sets, and what detectron2 can train on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.pascal_voc import register_pascal_voc
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, Instances

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.d2_config import read_config
from slotcon_plugin.transfer.d2_data import check_data
from slotcon_plugin.transfer.d2_evaluation import build_evaluator, tidy_metrics

from .d2_configs import CONFIGS, load
from .own_labels import INCOMPLETE, change

NAME = "a_data_set_of_the_tests"
OWN = ("own_train", "own_val")


@pytest.fixture
def registered():
    yield NAME
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


@pytest.fixture
def own(boxes) -> Iterator[Path]:
    """The folder of two sets of one's own, registered as ``OWN``."""
    for name in OWN:
        split = name.removeprefix("own_")
        register_coco_instances(name, {}, str(boxes / f"annotations/{split}.json"), str(boxes / f"images/{split}"))
    yield boxes
    for name in OWN:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def config(train: tuple = (), test: tuple = (), classes: int = 20, masks: bool = False):
    cfg = load("mask_rcnn_r50_fpn_1x_coco")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.MASK_ON = classes, masks
    return cfg


def test_voc_can_be_trained_on_and_not_evaluated(registered, tmp_path):
    register_pascal_voc(registered, str(tmp_path / "VOC2007"), "trainval", 2007)
    MetadataCatalog.get(registered).evaluator_type = "pascal_voc"
    with pytest.raises(
        UserError, match=rf"{registered}: .*VOC2007 does not exist. Expected: JPEGImages/.*Annotations/"
    ):
        check_data(config((registered,)))
    (tmp_path / "VOC2007").mkdir()
    check_data(config((registered,)))
    with pytest.raises(UserError, match=r"NUM_CLASSES is 80, .* has 20 classes"):
        check_data(config((registered,), classes=80))
    with pytest.raises(UserError, match=r"has boxes and no outlines, .*: give MODEL.MASK_ON False"):
        check_data(config((registered,), masks=True))
    with pytest.raises(
        UserError, match=rf"DATASETS.TEST: {registered}: no evaluator for type 'pascal_voc'; known: coco"
    ):
        check_data(config(test=(registered,)))


@pytest.mark.parametrize("where", ["train", "test"])
def test_a_name_that_is_not_registered_is_refused(where):
    with pytest.raises(UserError, match=r"detectron2 knows no data set 'nowhere_2007'; expected one of its own"):
        check_data(config(**{where: ("nowhere_2007",)}))
    assert "nowhere_2007" not in MetadataCatalog


def check_own(**settings) -> None:
    check_data(config(OWN[:1], OWN[1:], **{"classes": 2, "masks": True, **settings}))


def test_classes_of_a_registered_file_are_read_before_the_run(own):
    check_own()
    with pytest.raises(UserError, match=r"ROI_HEADS\.NUM_CLASSES is 3, .* has 2 classes"):
        check_own(classes=3)


@pytest.mark.parametrize(("edit", "message"), INCOMPLETE)
def test_labels_that_would_stop_a_run_or_spoil_it_are_refused_before_it(edit, message, own):
    change(own, "val", edit)
    with pytest.raises(UserError, match=message):
        check_own()


def exchange_ids(found: dict) -> None:
    for category in found["categories"]:
        category["id"] = {7: 3, 3: 7}[category["id"]]


def test_sets_that_number_the_same_classes_differently_are_refused(own):
    """Labels of one would be judged as other classes of the other."""
    change(own, "val", lambda found: found["categories"].reverse())  # the ids tell
    check_own()
    change(own, "val", exchange_ids)
    with pytest.raises(UserError, match=r"class 0 of own_val is 'crate', of own_train 'ball'\. .*under the same ids"):
        check_own()
    MetadataCatalog.get("own_train").thing_classes = ["crate", "ball"]
    with pytest.raises(UserError, match=r"train\.json lists 2 categories, own_train has 2; differing: their order"):
        check_own()


def as_run_lengths(found: dict) -> None:
    for annotation in found["annotations"]:
        annotation["segmentation"] = {"size": [120, 160], "counts": [19200]}


def test_a_mask_head_needs_outlines_in_the_form_that_the_config_says(own):
    change(own, "train", as_run_lengths)
    with pytest.raises(UserError, match=r"own_train: the outlines of (\d+) of \1 .* give INPUT\.MASK_FORMAT bitmask"):
        check_own()
    cfg = config(OWN[:1], OWN[1:], classes=2, masks=True)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    check_data(cfg)
    check_own(masks=False)
    change(own, "val", lambda found: found["annotations"][1].update(segmentation=[]))
    with pytest.raises(
        UserError, match=r"own_val: 1 of \d+ .*val\.json have no outline, .*: give MODEL\.MASK_ON False"
    ):
        check_data(cfg)
    check_own(masks=False)


def test_annotations_that_detectron2_does_not_read_are_refused(own):
    change(own, "train", lambda found: found["annotations"][0].update(ignore=1))
    with pytest.raises(UserError, match=r"own_train: 1 of \d+ .* are marked 'ignore', which detectron2 does not read"):
        check_own()


def test_a_crowd_that_is_none_is_refused_where_it_is_trained_on(own):
    def unsaid(found: dict) -> None:
        found["annotations"][0]["iscrowd"] = None

    change(own, "val", unsaid)
    check_own()
    change(own, "train", unsaid)
    with pytest.raises(
        UserError, match=r"own_train: 1 of \d+ .* have iscrowd: null, which detectron2 takes for crowds"
    ):
        check_own()


def test_a_set_without_a_file_is_taken_as_it_is(registered):
    DatasetCatalog.register(registered, list)
    MetadataCatalog.get(registered).set(evaluator_type="coco", thing_classes=["nut", "bolt"])
    check_data(config(test=(registered,), classes=2))


def test_the_classes_of_a_retinanet_are_counted(own):
    cfg = config(OWN[:1], OWN[1:], classes=80)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "RetinaNet", 2
    check_data(cfg)
    cfg.MODEL.RETINANET.NUM_CLASSES = 80
    with pytest.raises(UserError, match=r"MODEL\.RETINANET\.NUM_CLASSES is 80, own_train has 2 classes"):
        check_data(cfg)


def evaluator_of(tmp_path: Path, masks: bool = False, **model: str) -> DatasetEvaluator:
    cfg = config(OWN[:1], OWN[1:], classes=2, masks=masks)
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.update(model)
    evaluator = build_evaluator(cfg, "own_val")
    evaluator.reset()
    return evaluator


@pytest.mark.parametrize(
    ("kinds", "model"),
    [
        (["box"], {}),
        (["box", "mask"], {"masks": True}),
        (["box"], {"masks": True, "META_ARCHITECTURE": "RetinaNet"}),  # which has no masks
    ],
)
@pytest.mark.parametrize("far", [None, 5000])
def test_a_detector_that_finds_nothing_has_the_figures_of_one_that_finds_nothing_right(
    far, kinds, model, own, tmp_path
):
    evaluator = evaluator_of(tmp_path, **model)
    for photo in DatasetCatalog.get("own_val"):
        instances = Instances((photo["height"], photo["width"]))
        boxes = torch.tensor([[far, far, far + 9, far + 9]] if far else []).reshape(-1, 4)
        instances.pred_boxes, instances.scores = Boxes(boxes), torch.ones(len(boxes))
        instances.pred_classes = torch.zeros(len(boxes), dtype=torch.long)
        if "mask" in kinds:
            instances.pred_masks = torch.zeros((len(boxes), photo["height"], photo["width"]), dtype=torch.bool)
            instances.pred_masks[:, 0, 0] = True
        evaluator.process([photo], [{"instances": instances}])
    areas = [one["area"] for one in json.loads((own / "annotations/val.json").read_text())["annotations"]]
    limits = {"s": (0, 32), "m": (32, 96), "l": (96, 1e5)}  # sides of squares, as pycocotools has them
    sizes = [name for name, (low, high) in limits.items() if any(low**2 <= area <= high**2 for area in areas)]
    figures = [f"AP{part}_{kind}" for kind in kinds for part in ("", "50", "75", *sizes)]
    assert tidy_metrics(evaluator.evaluate()) == dict.fromkeys(figures, 0.0)


@pytest.mark.parametrize("first", [0, 1])
def test_perfect_boxes_are_worth_100_however_annotations_are_numbered(first, own, tmp_path):
    """Tools number them from 0 and leave out iscrowd."""

    def renumber(found: dict) -> None:
        for number, annotation in enumerate(found["annotations"], start=first):
            annotation["id"] = number
            annotation.pop("iscrowd")

    change(own, "val", renumber)
    check_own()
    evaluator = evaluator_of(tmp_path)
    for photo in DatasetCatalog.get("own_val"):
        instances = Instances((photo["height"], photo["width"]))
        x, y, w, h = torch.tensor([one["bbox"] for one in photo["annotations"]]).unbind(1)
        instances.pred_boxes = Boxes(torch.stack([x, y, x + w, y + h], dim=1))
        instances.pred_classes = torch.tensor([one["category_id"] for one in photo["annotations"]])
        instances.scores = torch.ones(len(instances.pred_classes))
        evaluator.process([photo], [{"instances": instances}])
    assert tidy_metrics(evaluator.evaluate())["AP_box"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: [1, 2", r"mine\.yaml or its _BASE_ cannot be read: .*mine\.yaml.*, line 1"),
        ("_BASE_: nowhere.yaml", r"mine\.yaml or its _BASE_ cannot be read: .*nowhere\.yaml"),
        ("", r"mine\.yaml or its _BASE_ cannot be read: "),
        ("- MODEL", r"mine\.yaml"),
        ("MODEL", r"mine\.yaml"),
        ("MODEL: 3", r"mine\.yaml"),
        ("MODEL:\n  NO_SUCH_KEY: 1", r"mine\.yaml.*NO_SUCH_KEY"),
    ],
)
def test_config_files_that_cannot_be_read_are_named(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=f"(?s){message}"):
        read_config(str(tmp_path / "mine.yaml"), (), None)


def test_what_is_no_seed_is_refused():
    with pytest.raises(UserError, match="SEED: expected a whole number from 0"):
        read_config(str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml"), ["SEED", "5000000000"], None)


def test_a_run_has_a_step():
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER must be at least 1, got 0"):
        read_config(str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml"), ["SOLVER.MAX_ITER", "0"], None)
