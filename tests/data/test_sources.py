"""Which photos a source names, in which order, and what it says when there is none."""

import json
import os
import pickle
import time

import numpy as np
import pytest

from slotcon_plugin.data.sources import ConcatSources, PackedStrings
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import DATASETS


def build(type, **options):
    return DATASETS.build(dict(type=f"slotcon_plugin.{type}", **options))


def paths(source):
    return [source.path(index) for index in range(len(source))]


def test_folder_is_walked_sorted_and_without_hidden_files(folder):
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no photo")
    (folder / "top.JPEG").write_bytes(b"top")
    source = build("ImageFolder", root=str(folder))
    expected = ["top.JPEG"] + [f"cats/{n:02}.{'png' if n % 3 else 'jpg'}" for n in range(1, 12, 2)]
    expected += [f"dogs/{n:02}.{'png' if n % 3 else 'jpg'}" for n in range(0, 12, 2)]
    assert paths(source) == [str(folder / name) for name in expected]
    assert source.read(0) == b"top"


def test_list_file_is_relative_to_its_folder_or_to_a_root(folder):
    (folder / "list.txt").write_text("# chosen\ncats/01.png\n\n  dogs/00.jpg \n")
    expected = [str(folder / "cats/01.png"), str(folder / "dogs/00.jpg")]
    assert paths(build("ListFile", path=folder / "list.txt")) == expected
    moved = folder.parent / "list.txt"
    moved.write_text("cats/01.png\n" + expected[1] + "\n")
    assert paths(build("ListFile", path=moved, root=folder)) == expected


def test_a_list_of_folders_is_told_what_it_names(folder):
    (folder / "folders.txt").write_text(f"{folder}\n")
    with pytest.raises(UserError, match="which is a folder: give that instead"):
        build("ListFile", path=folder / "folders.txt")


def test_list_files_of_other_systems(folder):
    """A mark in front, lines that end in CR LF, names that are not UTF-8, line separators that are not new lines."""
    names = ["cats/01.png", "dogs/ü.png", "dogs/a\u2028b.png", os.fsdecode(b"cats/latin-\xe9.png")]
    for name in names[1:]:
        (folder / name).write_bytes((folder / names[0]).read_bytes())
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(map(os.fsencode, names)) + b"\r\n")
    assert paths(build("ListFile", path=folder / "list.txt")) == [str(folder / name) for name in names]
    (folder / "utf16.txt").write_text("cats/01.png\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"utf16\.txt: expected a path a line in UTF-8"):
        build("ListFile", path=folder / "utf16.txt")
    (folder / "latin.txt").write_text("dogs/ü.png\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"no photo of list file .*latin\.txt is there, .*dogs/\\xfc\.png"):
        build("ListFile", path=folder / "latin.txt")


def test_some_missing_photos_are_left_to_the_data_set(folder):
    (folder / "list.txt").write_text("cats/gone.png\ncats/01.png\n")
    assert len(build("ListFile", path=folder / "list.txt")) == 2


def test_coco_file_gives_its_images_in_its_order(folder):
    annotations = folder.parent / "instances.json"
    annotations.write_text(json.dumps({"images": [{"id": 5, "file_name": "02.png"}, {"id": 1, "file_name": "00.jpg"}]}))
    source = build("CocoImages", ann_file=annotations, root=folder / "dogs")
    assert paths(source) == [str(folder / "dogs/02.png"), str(folder / "dogs/00.jpg")]


def test_several_sources_follow_each_other(folder):
    both = build(
        "ConcatSources",
        sources=[dict(type="slotcon_plugin.ImageFolder", root=str(folder / name)) for name in ("dogs", "cats")],
    )
    assert len(both) == 12
    assert paths(both) == paths(build("ImageFolder", root=folder / "dogs")) + paths(
        build("ImageFolder", root=folder / "cats")
    )
    assert both.read(6) == (folder / "cats/01.png").read_bytes()
    with pytest.raises(IndexError):
        both.path(12)


def test_sources_say_what_is_missing(folder, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        build("ImageFolder", root=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no photo"):
        build("ImageFolder", root=tmp_path / "empty")
    with pytest.raises(UserError, match=r"ann_file of the CocoImages is not a file: .*--data-root.*--photos FOLDER"):
        build("CocoImages", ann_file=tmp_path / "none.json", root=folder)
    with pytest.raises(UserError, match="ListFile is not a file"):
        build("ListFile", path=tmp_path / "nowhere.txt")
    (tmp_path / "list.txt").write_text("01.png\n02.png\n")
    with pytest.raises(UserError, match=r"no photo of list file .* the first would be .*/01\.png; check `root`"):
        build("ListFile", path=tmp_path / "list.txt", root=folder)
    (tmp_path / "wrong.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"wrong\.json is not a whole COCO annotation file"):
        build("CocoImages", ann_file=tmp_path / "wrong.json", root=folder)
    with pytest.raises(UserError, match="no source"):
        ConcatSources([])


def test_packed_strings_are_the_strings():
    names = ["a.jpg", "", "ünïcode/ä.png", os.fsdecode(b"not-utf8-\xff.jpg"), "z" * 300]
    packed = PackedStrings(names)
    assert list(packed) == names
    assert list(pickle.loads(pickle.dumps(packed))) == names
    with pytest.raises(IndexError):
        packed[5]


def test_a_hundred_thousand_names_are_small_and_quick():
    names = [f"n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG" for i in range(100_000)]
    packed = PackedStrings(names)
    assert len(pickle.dumps(packed)) < sum(map(len, names)) + 8 * len(names) + 1000
    start = time.process_time()
    for index in np.random.default_rng(0).integers(0, len(names), 1000).tolist():
        assert packed[index] == names[index]
    assert time.process_time() - start < 0.5
