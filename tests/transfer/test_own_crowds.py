"""``iscrowd`` in annotations of one's own: what is learned and judged, by mmdet and pycocotools as they are."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("mmdet")

from mmdet.datasets import CocoDataset

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer import own_boxes
from slotcon_plugin.transfer.mm_objects import OwnCocoMetric
from slotcon_plugin.transfer.own_boxes import read_own_boxes

from .figures import judged
from .own_labels import change


def marked(boxes, *values) -> tuple:
    """Of the training split; values are given to the first annotations."""

    def mark(found):
        for one, value in zip(found["annotations"], values * len(found["annotations"]) if len(values) == 1 else values):
            one["iscrowd"] = value

    change(boxes, "train", mark)
    return boxes / "annotations/train.json", boxes / "images/train"


def learned(boxes) -> int:
    data = CocoDataset(
        ann_file=str(boxes / "annotations/train.json"),
        data_prefix={"img": str(boxes / "images/train")},
        metainfo={"classes": ("crate", "ball")},
        pipeline=[],
    )
    return sum(not each["ignore_flag"] for n in range(len(data)) for each in data.get_data_info(n)["instances"])


@pytest.mark.parametrize("value", [1, True])
def test_a_file_of_crowds_alone_is_refused(value, boxes):
    path, photos = marked(boxes, value)
    assert learned(boxes) == 0
    assert judged(OwnCocoMetric(ann_file=str(path), metric="bbox"), json.loads(path.read_text())) == {}
    with pytest.raises(UserError, match=r"(\d+) of \1 annotations of .*train\.json have iscrowd 1: .*needs iscrowd 0"):
        read_own_boxes(path, photos)


def test_some_crowds_are_told(boxes, monkeypatch):
    said = []
    monkeypatch.setattr(own_boxes, "print_log", lambda text, *_: said.append(text))
    path, photos = marked(boxes, 1, True, 0, False, None)
    count = len(read_own_boxes(path, photos)["annotations"])
    assert learned(boxes) == count - 2
    assert len(said) == 1 and said[0].startswith(f"2 of {count} annotations of {path} have iscrowd 1: their boxes are")


@pytest.mark.parametrize("value", [0, False, None])
def test_what_is_no_crowd_is_learned_and_judged(value, boxes, monkeypatch):
    said = []
    monkeypatch.setattr(own_boxes, "print_log", lambda text, *_: said.append(text))
    path, photos = marked(boxes, value)
    assert learned(boxes) == len(read_own_boxes(path, photos)["annotations"])
    metric = OwnCocoMetric(ann_file=str(path), metric="bbox")
    assert judged(metric, json.loads(path.read_text()), right=True)["AP_box"] == 100
    assert not said


@pytest.mark.parametrize("value", ["0", "1", 2, -1, [0]])
def test_other_values_are_refused(value, boxes):
    path, photos = marked(boxes, 0, value)
    with pytest.raises(UserError, match=rf"1 of \d+ .* neither 0 nor 1, the first is {re.escape(repr(value))} of"):
        read_own_boxes(path, photos)


def test_an_area_is_asked_for_where_something_reads_it(boxes):
    change(boxes, "train", lambda found: [one.pop("area") for one in found["annotations"]])
    path, photos = boxes / "annotations/train.json", boxes / "images/train"
    with pytest.raises(KeyError, match="area"):
        learned(boxes)
    with pytest.raises(UserError, match="has no 'area'"):
        read_own_boxes(path, photos)
    change(boxes, "train", lambda found: found["annotations"][0].update(area="unknown"))
    assert read_own_boxes(path, photos, area=False)["annotations"]
