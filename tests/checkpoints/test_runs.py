"""A work dir in the place of a config and a checkpoint."""

import argparse
import json
import os
import re
import shutil

import mmengine.logging
import pytest
import torch

from slotcon_plugin.actions.runs import checkpoint_of
from slotcon_plugin.arguments import add_trained_model
from slotcon_plugin.checkpoints.runs import config_of, find_checkpoint, locate
from slotcon_plugin.convert.metadata import told_by
from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.evaluation.arms import build_untrained
from slotcon_plugin.loading import load_pretrainer


@pytest.fixture
def run(tmp_path):
    """Three checkpoints, the newest cut short; the config of this run and an older one."""
    for number in (5, 10, 20):
        torch.save({"state_dict": {}, "meta": {"iter": number}}, tmp_path / f"iter_{number}.pth")
    newest = tmp_path / "iter_20.pth"
    newest.write_bytes(newest.read_bytes()[:200])
    for age, name in enumerate(("slotcon_small.py", "vader_small.py", "transfer_config.py")):
        (tmp_path / name).write_text("model = dict()")
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    return tmp_path


def test_a_work_dir_is_its_newest_whole_checkpoint_and_its_latest_config(run):
    assert find_checkpoint(run) == locate(run) == run / "iter_10.pth"
    assert config_of(run) == config_of(run / "iter_5.pth") == run / "vader_small.py"
    assert find_checkpoint(run / "iter_5.pth") == run / "iter_5.pth"
    assert config_of("somewhere/else.py").name == "else.py"


def test_a_damaged_checkpoint_is_not_passed_over_in_silence(run, monkeypatch):
    """What is exported, embedded or judged would be older weights."""
    flipped = bytearray((run / "iter_10.pth").read_bytes())
    place = flipped.index(b"state_dict")  # in the middle: the file ends as it should
    flipped[place : place + 4] = bytes(4)
    (run / "iter_10.pth").write_bytes(flipped)
    told = []
    monkeypatch.setattr(mmengine.logging, "print_log", lambda text, logger, level: told.append(text))
    assert find_checkpoint(run) == run / "iter_5.pth"
    assert len(told) == 2 and told[0].startswith(f"{run / 'iter_20.pth'} is damaged or cut short (")
    assert re.match(r".*iter_10\.pth is damaged or cut short \(.*checksum.*\); trying the one before it", told[1])


def test_a_script_beside_the_config_is_not_taken_for_it(run):
    """Nor executed, to find out."""
    (run / "notes.py").write_text("import os\nraise SystemExit('executed')\n")
    (run / "broken.py").write_text("def")
    assert config_of(run) == run / "vader_small.py"
    (run / "mine.py").write_text("_base_ = 'vader_small.py'\nmodel = dict(queue_size=8)\n")
    assert config_of(run) == run / "vader_small.py", "one that people write is newer, and not what the run has left"
    for name in ("slotcon_small", "vader_small"):
        (run / f"{name}.py").unlink()
    assert config_of(run) == run / "mine.py"
    (run / "other.py").write_text("_base_ = 'mine.py'\n")
    with pytest.raises(ConversionError, match=r"several configs, mine\.py, other\.py, .*say which with --config"):
        config_of(run)
    for name in ("mine", "other"):
        (run / f"{name}.py").unlink()
    with pytest.raises(ConversionError, match=r"no config .*; broken\.py, notes\.py set no model"):
        config_of(run)


def test_a_checkpoint_says_which_of_several_configs_it_was_trained_with(run):
    """A copy of a folder has the times of the copying."""
    for number, name in ((5, "slotcon_small"), (10, "vader_small")):
        meta = {"iter": number, "experiment_name": f"{name}_20260102_030405"}
        torch.save({"state_dict": {}, "meta": meta}, run / f"iter_{number}.pth")
    os.utime(run / "slotcon_small.py", (2000, 2000))
    assert config_of(run) == config_of(run / "iter_10.pth") == run / "vader_small.py"
    assert config_of(run / "iter_5.pth") == run / "slotcon_small.py"


def test_a_config_without_a_model_is_named(run):
    (run / "notes.py").write_text("a = 1\n")
    for load in (
        lambda: load_pretrainer(run / "notes.py", run / "iter_5.pth"),
        lambda: build_untrained(run / "notes.py", 0),
    ):
        with pytest.raises(UserError, match=r"notes\.py sets no model: expected the config of a pretraining"):
            load()


def test_a_course_that_was_left_does_not_count(tmp_path):
    """The run went back to iteration 5 and on from there: 10 and 20 are of the course that it left."""
    for number, course in ((5, "old"), (10, "old"), (20, "old")):
        torch.save({"state_dict": {}, "meta": {"run": {"id": course}}}, tmp_path / f"iter_{number}.pth")
    assert find_checkpoint(tmp_path) == tmp_path / "iter_20.pth"
    record = {"id": "new", "identity": {}, "continues": str(tmp_path / "iter_5.pth")}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert find_checkpoint(tmp_path) == tmp_path / "iter_5.pth"
    torch.save({"state_dict": {}, "meta": {"run": {"id": "new"}}}, tmp_path / "iter_7.pth")
    assert find_checkpoint(tmp_path) == tmp_path / "iter_7.pth"


def test_where_a_run_went_back_to_is_found_when_its_folder_is_moved_or_copied(tmp_path):
    here, there, copied = tmp_path / "here", tmp_path / "there", tmp_path / "copied"
    here.mkdir()
    for number in (5, 10):
        torch.save({"state_dict": {}, "meta": {"run": {"id": "old"}}}, here / f"iter_{number}.pth")
    (here / "run.json").write_text(json.dumps({"id": "new", "identity": {}, "continues": "iter_5.pth"}))
    shutil.copytree(here, copied)
    assert find_checkpoint(copied) == copied / "iter_5.pth"
    assert find_checkpoint(here.rename(there)) == there / "iter_5.pth"


def test_folders_that_are_no_runs(run, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ConversionError, match=r"holds no whole checkpoint"):
        find_checkpoint(empty)
    with pytest.raises(ConversionError, match=r"no config \(.py\) in"):
        config_of(empty)
    for name in ("iter_5.pth", "iter_10.pth"):
        (run / name).unlink()
    with pytest.raises(ConversionError, match="holds no whole checkpoint"):
        find_checkpoint(run)


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        (["run", "a.jpg", "b.jpg"], ("run", "run", ["a.jpg", "b.jpg"])),
        (["c.py", "k.pth", "a.jpg"], ("c.py", "k.pth", ["a.jpg"])),
        (["run"], "the following arguments are required: PHOTOS"),
        (["c.py", "k.pth"], "expected photos after k.pth, got nothing"),
        (["c.py"], "the following arguments are required: PHOTOS"),
        (["run", "a", "b", "c"], "expected photos after run, got a b c"),
    ],
)
def test_tools_take_a_work_dir_or_config_and_checkpoint(words, understood, capsys):
    parser = argparse.ArgumentParser()
    add_trained_model(parser, "photos", "photos", most=2)
    if isinstance(understood, tuple):
        args = parser.parse_args(words)
        assert (args.config, args.checkpoint, args.photos) == understood
    else:
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert understood in capsys.readouterr().err


def test_a_model_zoo_s_name_stands_for_its_file_wherever_a_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "checkpoints" / "resnet18-0123.pth")
    assert checkpoint_of("torchvision://resnet18") == tmp_path / "checkpoints" / "resnet18-0123.pth"
    assert told_by("torchvision://resnet18") == {}
    for look in (checkpoint_of, told_by):
        with pytest.raises(ConversionError, match="download it first"):
            look("torchvision://resnet50")
