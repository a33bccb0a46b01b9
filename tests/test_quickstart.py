"""The quickstart on a folder of photos: what it takes, what it leaves."""

import os

import pytest

from slotcon_plugin import quickstart
from slotcon_plugin.data import ListFile
from slotcon_plugin.demo_scenes import make_demo_scenes


def test_held_out_photos_are_not_trained_on(tmp_path, monkeypatch):
    for i in range(100):
        (tmp_path / f"{i:03d}.jpg").touch()
    train, held_out = (path.read_text().splitlines() for path in quickstart.take_photos(tmp_path, tmp_path))
    assert len(train) + len(held_out) == 100 and len(train) >= 64
    assert not set(train) & set(held_out)


def test_only_files_are_taken(tmp_path, capsys):
    """Not folders with a photo's name, hidden files, links that lead nowhere or back."""
    photos, work_dir = tmp_path / "photos", tmp_path / "run"
    (photos / "0.jpg").mkdir(parents=True)
    work_dir.mkdir()
    for name in [".hidden.jpg", "new\nline.jpg", os.fsdecode(b"latin-\xe9.jpg"), *(f"{i:03d}.jpg" for i in range(80))]:
        (photos / name).touch()
    (photos / "!.jpg").symlink_to("nowhere")
    (photos / "loop").symlink_to(photos)
    lists = [ListFile(path) for path in quickstart.take_photos(photos, work_dir)]
    assert "left out 1 photos with a line break in their path" in capsys.readouterr().out
    taken = [path for source in lists for path in source.names]
    assert len(taken) == len(set(taken)) == 81
    assert all(os.path.isfile(path) for path in taken)


def test_too_few_photos_are_named(tmp_path):
    (tmp_path / "one.jpg").touch()
    with pytest.raises(ValueError, match="has 1 photos"):
        quickstart.take_photos(tmp_path, tmp_path)


@pytest.mark.slow
def test_a_folder_of_photos_becomes_a_backbone(tmp_path, repo, monkeypatch, capsys):
    scenes = make_demo_scenes(tmp_path / "scenes", {"train": 90, "val": 1}, size=(128, 96))
    monkeypatch.chdir(repo)
    monkeypatch.setattr(quickstart, "_IMAGES_SEEN", 128)
    quickstart.quickstart(str(scenes / "images/train"), str(tmp_path / "run"))
    said = capsys.readouterr().out
    assert "places found again" in said and "pretrained" in said and "random" in said
    for name in ("backbone_torchvision.pth", "groups.png", "health.jsonl"):
        assert (tmp_path / "run" / name).stat().st_size > 100
