import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from slotcon_plugin.demo_scenes import contact_sheet, make_demo_scenes
from slotcon_plugin.demo_scenes import make as make_module
from slotcon_plugin.demo_scenes.make import default_splits
from tests.processes import run_python

SIZE = (64, 48)
TOOL = Path(__file__).parents[2] / "tools" / "make_demo_scenes.py"


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_parameters_give_the_same_files(tmp_path):
    first = digest(make_demo_scenes(tmp_path / "a", 4, SIZE))
    assert first == digest(make_demo_scenes(tmp_path / "b", 4, SIZE))
    other = digest(make_demo_scenes(tmp_path / "c", 4, SIZE, seed=1))
    photo = "images/train/scene_000000.jpg"
    assert first[photo] != other[photo]


def test_more_training_scenes_leave_the_others_as_they_are(tmp_path):
    few = digest(make_demo_scenes(tmp_path / "few", {"train": 2, "val": 2}, SIZE))
    many = digest(make_demo_scenes(tmp_path / "many", {"train": 3, "val": 2}, SIZE))
    few.pop(make_module.MARKER)
    assert few.items() <= many.items()


def test_a_finished_folder_is_kept(tmp_path):
    out = make_demo_scenes(tmp_path / "out", 3, SIZE)
    photo = next((out / "images").rglob("*.jpg"))
    os.utime(photo, (1, 1))
    make_demo_scenes(out, 3, SIZE)
    assert photo.stat().st_mtime == 1


def test_a_linked_folder_is_filled_where_it_lies(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    made = make_demo_scenes(tmp_path / "link", 2, size=(48, 32))
    assert made == tmp_path / "link" and made.is_symlink() and any((tmp_path / "there").iterdir())


def test_an_interrupted_run_leaves_nothing_and_is_made_anew(tmp_path, monkeypatch):
    real = make_module.render_scene

    def fail_late(seed, index, size):
        if index == 1:
            raise KeyboardInterrupt
        return real(seed, index, size)

    monkeypatch.setattr(make_module, "render_scene", fail_late)
    with pytest.raises(KeyboardInterrupt):
        make_demo_scenes(tmp_path / "out", 3, SIZE)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(make_module, "render_scene", real)
    (tmp_path / "out").mkdir()  # an empty folder is fine
    assert (make_demo_scenes(tmp_path / "out", 3, SIZE) / make_module.MARKER).is_file()


def test_somebody_elses_folder_is_never_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"is not empty and has no demo_scenes.json.*delete this one"):
        make_demo_scenes(tmp_path / "out", 3, SIZE)
    out = make_demo_scenes(tmp_path / "other", 3, SIZE)
    with pytest.raises(ValueError, match=r"'seed': 0.*expected.*'seed': 5"):
        make_demo_scenes(out, 3, SIZE, seed=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "kitti"}, "layout: expected one of plain, coco.*got 'kitti'"),
        ({"num_images": {"train": 0}}, "got 'train': 0"),
        ({"num_images": {"test": 3}, "layout": "coco"}, r"splits among train, val \(coco layout\)"),
        ({"num_images": 1}, "num_images: expected more than 1"),
    ],
)
def test_errors(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_demo_scenes(tmp_path / "out", **{"num_images": 3, "size": SIZE, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_default_splits():
    assert default_splits(250, "plain") == {"train": 200, "val": 50}
    assert default_splits(10, "camvid") == {"train": 6, "val": 2, "test": 2}
    assert default_splits(2, "voc") == {"train": 1, "val": 1}


def test_contact_sheet_shows_scenes_and_truth():
    sheet = contact_sheet(size=SIZE)
    assert sheet.shape == (6 * 48, 4 * 64, 3)
    for index, (top, left) in {0: (0, 0), 3: (0, 192), 4: (96, 0)}.items():
        scene = make_module.render_scene(0, index, SIZE).image
        np.testing.assert_array_equal(sheet[top : top + 48, left : left + 64], scene)


def test_command_line(tmp_path):
    command = [TOOL, tmp_path / "out", "--layout", "voc", "--size", "64", "48"]
    done = run_python(*command, "--splits", "train=3", "val=1", "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert "voc layout" in done.stdout
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (6 * 48, 4 * 64, 3)
    wrong = run_python(*command, "--num-images", "9")
    assert wrong.returncode == 2
    assert "Choose another folder" in wrong.stderr
