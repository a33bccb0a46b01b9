"""Files of one's own that would end a run in its middle: annotations in another encoding, photos that are cut short."""

from __future__ import annotations

import json
import shutil

import pytest

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import open_labelled_set
from slotcon_plugin.transfer.annotations import category_names
from slotcon_plugin.transfer.own_boxes import read_own_boxes


def halve(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("encoding", "reason"), [("utf-8-sig", "begins with a byte order mark"), ("utf-16", "decode")])
def test_an_encoding_that_pycocotools_does_not_read_is_refused(encoding, reason, boxes):
    path = boxes / "annotations/train.json"
    path.write_text(path.read_text(), encoding=encoding)
    for read in (category_names, lambda path: read_own_boxes(path, boxes / "images/train")):
        with pytest.raises(UserError, match=rf"train\.json is not .*: .*{reason}.*\. Save it as UTF-8 without a byte"):
            read(path)


def test_names_beyond_ascii_are_read(boxes):
    path = boxes / "annotations/train.json"
    found = json.loads(path.read_text())
    found["categories"][0]["name"] = "Küche"
    path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    assert read_own_boxes(path, boxes / "images/train")["categories"][0]["name"] == "Küche"
    assert "Küche" in category_names(path)


def test_boxes_on_photos_that_are_cut_short_are_refused_before_the_run(boxes):
    photos = sorted((boxes / "images/train").iterdir())
    for photo in photos[1:3]:
        halve(photo)
    with pytest.raises(
        UserError,
        match=rf"2 of {len(photos)} photos that .*train\.json names cannot be read; .*truncated.* Copy them anew",
    ):
        read_own_boxes(boxes / "annotations/train.json", boxes / "images/train")


def test_masks_of_photos_that_are_cut_short_are_refused_before_the_run(scenes, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(scenes("camvid"), root)
    assert open_labelled_set(root, "val").check()
    photo = sorted((root / "images/val").iterdir())[-1]
    halve(photo)
    with pytest.raises(UserError, match=rf"{photo.name}: cannot be read as a photo: .*truncated.* Copy it anew"):
        open_labelled_set(root, "val").check()
