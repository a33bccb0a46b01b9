"""The quickstart on a folder of photos: what it takes, what it leaves."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from slotcon_plugin import quickstart
from slotcon_plugin.cli import build_parser
from slotcon_plugin.config import load_config
from slotcon_plugin.data import ListFile
from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.errors import UserError

HOLD = """
import pathlib, sys
from slotcon_plugin.engine import lock_work_dir
lock_work_dir(pathlib.Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_held_out_photos_are_not_trained_on(tmp_path, monkeypatch):
    for i in range(100):
        (tmp_path / f"{i:03d}.jpg").touch()
    train, held_out = quickstart.choose_photos(tmp_path)
    assert len(train) + len(held_out) == 100 and len(train) >= 64
    assert not set(train) & set(held_out)


def test_only_files_are_taken(tmp_path, capsys):
    """Not folders with a photo's name, hidden files, links that lead nowhere or back."""
    photos = tmp_path / "photos"
    (photos / "0.jpg").mkdir(parents=True)
    for name in [".hidden.jpg", "new\nline.jpg", os.fsdecode(b"latin-\xe9.jpg"), *(f"{i:03d}.jpg" for i in range(80))]:
        (photos / name).touch()
    (photos / "!.jpg").symlink_to("nowhere")
    (photos / "loop").symlink_to(photos)
    files = (tmp_path / "train.txt", tmp_path / "held_out.txt")
    lists = [ListFile(quickstart._write_list(*it)) for it in zip(quickstart.choose_photos(photos), files)]
    assert "left out 1 photos with a line break in their path" in capsys.readouterr().out
    taken = [path for source in lists for path in source.names]
    assert len(taken) == len(set(taken)) == 81
    assert all(os.path.isfile(path) for path in taken)


def test_too_few_photos_are_named(tmp_path):
    (tmp_path / "one.jpg").touch()
    with pytest.raises(ValueError, match="has 1 photos"):
        quickstart.choose_photos(tmp_path)


@pytest.mark.parametrize(
    ("pretrained", "random", "begins"),
    [
        (36.04, 32.21, "+3.8 mIoU over random weights: 36.0 against 32.2\nof "),
        (32.2, 32.2, "+0.0 mIoU over random weights: 32.2 against 32.2: nothing gained in a run this short\nof "),
        (31.9, 32.2, "-0.3 mIoU over random weights: 31.9 against 32.2: nothing gained in a run this short\nof "),
    ],
)
def test_what_was_gained_is_said_in_plain_words(pretrained, random, begins):
    assert str(quickstart.Gain("mIoU", "of scenes", pretrained, random)).startswith(begins)


def test_nothing_is_set_aside_for_too_few_photos(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/iter_9.pth").touch()
    (tmp_path / "one.jpg").touch()
    with pytest.raises(UserError, match="has 1 photos; the quickstart needs 72 at least"):
        quickstart.quickstart(str(tmp_path), str(tmp_path / "run"))
    assert not (tmp_path / "run.old1").exists()


def test_a_living_quickstart_is_left_alone(tmp_path, monkeypatch):
    """Its lists of photos, too, which are there before its first checkpoint."""
    work_dir = tmp_path / "run"
    work_dir.mkdir()
    (work_dir / "train.txt").write_text("the first run's")
    monkeypatch.setattr(quickstart, "choose_photos", lambda photos: (["a.jpg"], ["b.jpg"]))
    taken = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(work_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert taken.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {taken.pid}"):
            quickstart.quickstart(str(tmp_path), str(work_dir))
        assert (work_dir / "train.txt").read_text() == "the first run's"
    finally:
        taken.kill()
        taken.communicate()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written there .*--work-dir"):
        quickstart.quickstart(None, str(tmp_path / "file/run"))


@pytest.mark.slow
def test_demo_scenes_become_a_backbone_as_recorded(tmp_path, repo, monkeypatch, capsys, same_as_recorded):
    def small(name):
        cfg = load_config(name)
        cfg.train_dataloader.dataset.source.update(num_train=36, num_val=4, size=(96, 72))
        cfg.train_dataloader.update(batch_size=16, num_workers=0, persistent_workers=False)
        cfg.train_dataloader.dataset.view_size = 64
        return cfg

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "load_config", small)
    monkeypatch.setattr(quickstart, "_IMAGES_SEEN", 64)
    monkeypatch.setattr(quickstart, "_SCENES", {"train": 4, "val": 2})
    quickstart.quickstart()
    said = capsys.readouterr().out
    same_as_recorded(said, repo / "docs/quickstart.md", "quickstart")
    assert said.count("next  ") == 1
    commands = re.findall(r"(?:slotcon|-m slotcon_plugin) (\w+ .*?)(?:    #|$)", said.split("next  ")[1], re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        build_parser(command.split()[:1]).parse_args(shlex.split(command))


@pytest.mark.slow
def test_a_folder_of_photos_becomes_a_backbone(tmp_path, repo, monkeypatch, capsys):
    scenes = make_demo_scenes(tmp_path / "scenes", {"train": 90, "val": 1}, size=(128, 96))
    monkeypatch.chdir(repo)
    monkeypatch.setattr(quickstart, "_IMAGES_SEEN", 128)
    quickstart.quickstart(str(scenes / "images/train"), str(tmp_path / "run"))
    said = capsys.readouterr().out
    order = ["1 of 4", "pretraining SlotCon", "2 of 4", "3 of 4", "4 of 4", "backbone ", "gained ", "next "]
    assert sorted(order, key=said.index) == order, said
    assert re.search(r"gained      [+-]\d+\.\d % of places over random weights: \d+\.\d against \d+\.\d", said)
    assert said.count("next  ") == 1 and len(said.splitlines()) < 50
    for name in ("backbone_torchvision.pth", "groups.png", "health.jsonl"):
        assert (tmp_path / "run" / name).stat().st_size > 100

    backbone = tmp_path / "run/backbone_torchvision.pth"
    exported = backbone.read_bytes()
    backbone.unlink()
    quickstart.quickstart(str(scenes / "images/train"), str(tmp_path / "run"), resume=True)  # stopped after step 1 of 4
    assert backbone.read_bytes() == exported and not (tmp_path / "run.old1").exists()
    assert capsys.readouterr().out.partition("\ngained ")[2] == said.partition("\ngained ")[2]
