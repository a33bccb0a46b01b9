"""What a user of detectron2 may get wrong in a config file and its data sets, and what detectron2 can train on."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.pascal_voc import register_pascal_voc

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.d2_config import read_config
from slotcon_plugin.transfer.d2_data import check_data

from .d2_configs import CONFIGS, load

NAME = "a_data_set_of_the_tests"


@pytest.fixture
def registered():
    yield NAME
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


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


def test_classes_of_a_registered_file_are_read_before_the_run(registered, tmp_path):
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"categories": [{"id": 2, "name": "nut"}, {"id": 5, "name": "bolt"}]}))
    register_coco_instances(registered, {}, str(file), str(tmp_path))
    check_data(config((registered,), (registered,), classes=2))
    with pytest.raises(UserError, match=r"NUM_CLASSES is 3, .* has 2 classes"):
        check_data(config((registered,), classes=3))


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
