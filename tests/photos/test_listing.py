"""Which files of a folder are photos, in which order, and what is said about the others."""

import os
import time

import pytest

from slotcon_plugin.demo_scenes import WRITERS, make_demo_scenes
from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import collect_photos, evenly_spaced, list_photos, listing, printable


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    lines = []
    monkeypatch.setattr(listing, "print_log", lambda message, *_: lines.append(message))
    return lines


def touch(folder, *names):
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def test_photos_of_a_folder_come_before_those_of_the_folders_in_it(tmp_path, said):
    touch(tmp_path, "z.jpg", "B.PNG", "a/2.webp", "a/1.jpeg", "a/deep/0.tif", "b.jpg/inside.png")
    touch(tmp_path, ".hidden.jpg", ".cache/1.jpg", "notes.txt", "jpg")
    assert list_photos(tmp_path) == ["B.PNG", "z.jpg", "a/1.jpeg", "a/2.webp", "a/deep/0.tif", "b.jpg/inside.png"]
    assert said == []


def test_names_are_whatever_the_file_system_holds(tmp_path, said):
    names = ["new\nline.jpg", "tab\t.jpg", "ünï\u2028.jpg", os.fsdecode(b"latin-\xe9.jpg"), " .jpg", "#1.jpg"]
    touch(tmp_path, *names)
    assert list_photos(tmp_path) == sorted(names)
    assert printable(tmp_path / names[0]) == f"{tmp_path}/new\\nline.jpg"
    assert printable(names[2]) == "ünï\\u2028.jpg"
    assert printable(names[3]) == "latin-\\xe9.jpg"
    assert printable("plain ünï.jpg") == "plain ünï.jpg"


def test_what_is_left_out_is_counted_and_named(tmp_path, said):
    touch(tmp_path, "a.jpg", "b.gif", "c.GIF", "sub/d.jp2", "table.csv")
    os.symlink(tmp_path / "nowhere.jpg", tmp_path / "dangling.jpg")
    os.symlink("itself.png", tmp_path / "itself.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert list_photos(tmp_path) == ["a.jpg"]
    assert said == [f"folder {tmp_path}: left out 2 .gif, 1 .jp2, 3 links that lead nowhere or special files"]


@pytest.mark.parametrize("layout", sorted(WRITERS))
def test_masks_of_a_data_set_are_no_photos(tmp_path, said, layout):
    root = make_demo_scenes(tmp_path / "scenes", {"train": 2, "val": 1}, (48, 32), layout=layout)
    names = list_photos(root)
    assert {name.rpartition(".")[2] for name in names} <= ({"png"} if layout == "cityscapes" else {"jpg"})
    assert len(names) == 3
    assert "folders of masks (" in said[0]


def test_a_folder_called_annotations_may_hold_photos(tmp_path, said):
    touch(tmp_path, "annotations/a.jpg", "masks/b.png")
    assert list_photos(tmp_path) == ["annotations/a.jpg", "masks/b.png"]
    assert said == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_folder_that_may_not_be_opened_is_named(tmp_path, said):
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    assert list_photos(tmp_path) == ["a.jpg"]
    (tmp_path / "closed").chmod(0o755)
    assert "1 folders that cannot be opened (Permission denied)" in said[0]


def test_links_are_followed_and_loops_walked_once(tmp_path):
    touch(tmp_path, "photos/a.jpg", "photos/sub/b.jpg", "elsewhere/c.jpg")
    os.symlink(tmp_path / "elsewhere/c.jpg", tmp_path / "photos/linked.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "photos/more")
    for name in ("photos/sub/up", "photos/sub/again", "elsewhere/back"):
        os.symlink(tmp_path / "photos", tmp_path / name)
    assert list_photos(tmp_path / "photos") == ["a.jpg", "linked.jpg", "more/c.jpg", "sub/b.jpg"]


def test_a_folder_without_photos_and_a_wrong_path_are_told(tmp_path):
    touch(tmp_path, "a.gif", "b.txt")
    with pytest.raises(UserError, match=r"has no photo in it; expected files ending in \.jpg, .*; found 1 \.gif"):
        list_photos(tmp_path)
    with pytest.raises(UserError, match=r"nowhere is not a folder \(seen from /"):
        list_photos(tmp_path / "nowhere")


def test_heic_is_a_matter_of_the_plugin(tmp_path, said):
    touch(tmp_path, "a.jpg", "b.heic", "c.HEIF")
    if ".heic" in listing.PHOTO_SUFFIXES:
        assert list_photos(tmp_path) == ["a.jpg", "b.heic", "c.HEIF"]
    else:
        assert list_photos(tmp_path) == ["a.jpg"]
        assert said == [f"folder {tmp_path}: left out 1 .heic, 1 .heif; `pip install pillow-heif` for .heic and .heif"]


def test_twenty_thousand_files_are_listed_at_once(tmp_path):
    touch(tmp_path, *(f"{n // 1000}/{n:06}.jpg" for n in range(20_000)))
    start = time.process_time()
    assert len(list_photos(tmp_path)) == 20_000
    assert time.process_time() - start < 1


def test_evenly_spaced_by_hand():
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 5) == evenly_spaced(3, 3) == evenly_spaced(3, None) == [0, 1, 2]
    assert evenly_spaced(9, 1) == [0]
    assert evenly_spaced(0, 6) == []


def test_photos_are_collected_from_files_and_folders(tmp_path):
    names = [str(tmp_path / f"{i}.png") for i in range(5)]
    touch(tmp_path, *names)
    assert collect_photos([tmp_path]) == names
    assert collect_photos([names[3], tmp_path], limit=3) == [names[3], names[1], names[4]]
    with pytest.raises(UserError, match="nowhere does not exist"):
        collect_photos([tmp_path / "nowhere"])
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert collect_photos([names[3], tmp_path, tmp_path / "link", names[3]]) == [names[3], *names[:3], *names[4:]]
    (tmp_path / "link").unlink()
    with pytest.raises(UserError, match="at least 1, got 0"):
        collect_photos(names, limit=0)
