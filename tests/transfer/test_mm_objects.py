"""One class in place of COCO's: the data set's labels and the metric's ground truth."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")
from slotcon_plugin.engine.console import ConsoleHandler
from slotcon_plugin.transfer import mm_objects
from slotcon_plugin.transfer.mm_objects import CocoObjectDataset, CocoObjectMetric


@pytest.fixture
def annotations(scenes) -> tuple:
    root = scenes("coco")
    path = root / "annotations/instances_val2017.json"
    found = json.loads(path.read_text())
    assert len({annotation["category_id"] for annotation in found["annotations"]}) > 1
    return root, path, found


def test_every_object_has_the_one_label(annotations):
    root, path, found = annotations
    dataset = CocoObjectDataset(
        ann_file=str(path), data_prefix={"img": str(root / "val2017")}, pipeline=[], test_mode=True
    )
    instances = [each for i in range(len(dataset)) for each in dataset.get_data_info(i)["instances"]]
    assert dataset.metainfo["classes"] == ("object",)
    assert len(instances) == len(found["annotations"])
    assert {instance["bbox_label"] for instance in instances} == {0}


@pytest.mark.parametrize(("moved", "perfect"), [(0, 100.0), (1000, 0.0)])
@pytest.mark.parametrize("first", [0, 1])
def test_boxes_are_right_whatever_lies_in_them(annotations, moved, perfect, first, tmp_path):
    """Nor does it matter that tools number annotations from 0 and leave out iscrowd."""
    _, path, found = annotations
    for number, annotation in enumerate(found["annotations"]):
        annotation["id"] = first + number
        annotation.pop("iscrowd")
    path = tmp_path / "val.json"
    path.write_text(json.dumps(found))
    metric = CocoObjectMetric(ann_file=str(path), metric="bbox")
    metric.dataset_meta = {"classes": ("object",)}
    for image in found["images"]:
        own = [each["bbox"] for each in found["annotations"] if each["image_id"] == image["id"]]
        corners = np.array([[x + moved, y, x + w + moved, y + h] for x, y, w, h in own])
        predictions = {
            "bboxes": torch.tensor(corners),
            "scores": torch.ones(len(own)),
            "labels": torch.zeros(len(own), dtype=torch.long),
        }
        metric.process({}, [{"img_id": image["id"], "ori_shape": (120, 160), "pred_instances": predictions}])
    assert metric.evaluate(len(found["images"]))["coco/bbox_mAP"] * 100 == pytest.approx(perfect)


def test_tables_go_to_the_log_alone_and_nothing_found_is_no_error(annotations, capsys, monkeypatch, caplog):
    _, path, found = annotations
    logger = logging.getLogger("of a run")
    monkeypatch.setattr(mm_objects.MMLogger, "get_current_instance", lambda: logger)
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)  # in the place of a log file's
    terminal = ConsoleHandler()
    logger.addHandler(terminal)
    terminal.begin()
    metric = CocoObjectMetric(ann_file=str(path), metric="bbox")
    metric.dataset_meta = {"classes": ("object",)}
    capsys.readouterr()
    for boxes in ([], [each["bbox"] for each in found["annotations"]]):
        for image in found["images"]:
            corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).reshape(-1, 4)
            seen = {
                "bboxes": corners,
                "scores": torch.ones(len(boxes)),
                "labels": torch.zeros(len(boxes), dtype=torch.long),
            }
            metric.process({}, [{"img_id": image["id"], "ori_shape": (120, 160), "pred_instances": seen}])
        figures = metric.evaluate(len(found["images"]))
        assert bool(figures) == bool(boxes)
    assert capsys.readouterr().out == ""
    warned = {r.getMessage() for r in caplog.records if r.levelno == logging.WARNING}
    assert warned == {"The detector finds nothing in these photos yet: its AP is 0"}
    assert not [r for r in caplog.records if r.levelno > logging.WARNING] and not logger.filters
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in caplog.text
