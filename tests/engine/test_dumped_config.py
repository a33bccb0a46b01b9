"""The copy of its config that a run leaves in its work dir: a run from it is the same run."""

import runpy
import sys

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from slotcon_plugin.engine.checkpoint import open_checkpoint
from slotcon_plugin.engine.loop import PretrainLoop
from slotcon_plugin.engine.settings import SETTINGS

TINY = [
    *("train_cfg.max_epochs=1", "train_dataloader.batch_size=4", "auto_scale_lr.base_batch_size=8"),
    *("train_dataloader.num_workers=0", "train_dataloader.dataset.view_size=64", "default_hooks.pictures=None"),
    *("model.projector.hidden_channels=16", "model.predictor.hidden_channels=16"),
]


@pytest.fixture
def train(repo, tmp_path, monkeypatch):
    """``tools/train.py`` in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repo / "tools/train.py"), run_name="__main__")
        assert end.value.code == 0

    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    return call


@pytest.mark.parametrize("mode", ["scale-lr", "accumulate"])
def test_a_run_from_the_copy_is_the_same_run(mode, train, tmp_path, monkeypatch):
    """Same batch, learning rate, passes and settings that followed; all is settled before the first step."""
    monkeypatch.setattr(PretrainLoop, "run", lambda loop: None)
    first, second = tmp_path / "a", tmp_path / "b"
    options = ("--batch-mode", mode, "--cfg-options", *TINY)
    train("slotcon_small", "--photos", tmp_path / "photos", "--work-dir", first, *options)
    train(first / "slotcon_small.py", "--work-dir", second)
    copies = [Config.fromfile(folder / "slotcon_small.py") for folder in (first, second)]
    for cfg in copies:
        cfg.pop("work_dir")
    assert copies[1].to_dict() == copies[0].to_dict()
    lr = {"scale-lr": 0.0005, "accumulate": 0.001}[mode]
    assert (copies[1].optim_wrapper.optimizer.lr, copies[1].model.grouping.num_prototypes) == (lr, 4)


def test_a_finished_run_keeps_the_copy_that_it_was_trained_by(train, tmp_path, capfd):
    """What judges it later, evaluate --measure retrieval for one, goes by its views."""
    first, copy = ("slotcon_small", "--photos", tmp_path / "photos", "--work-dir", tmp_path / "a"), None
    train(*first, "--cfg-options", *TINY)
    copy = (tmp_path / "a/slotcon_small.py").read_bytes()
    train(*first, "--resume", "--cfg-options", *TINY, "train_dataloader.dataset.view_size=96")
    assert (tmp_path / "a/slotcon_small.py").read_bytes() == copy
    said = capfd.readouterr()
    assert "is finished, iteration 2 of 2: nothing is trained" in said.out + said.err


@pytest.mark.slow
def test_the_copy_of_a_resumed_run_starts_a_new_one(train, tmp_path):
    first, copy = ("--work-dir", tmp_path / "a"), tmp_path / "a/slotcon_small.py"
    train("slotcon_small", "--photos", tmp_path / "photos", *first, "--cfg-options", *TINY)
    train(copy, *first, "--resume", "--cfg-options", "train_cfg.max_epochs=2")
    train(copy, "--work-dir", tmp_path / "b", "--cfg-options", "default_hooks.checkpoint.interval=1")
    assert len(list((tmp_path / "b").glob("iter_*.pth"))) == 3, "it went on from the other run's end"
    resumed, new = (open_checkpoint(tmp_path / folder / "iter_4.pth")["meta"] for folder in "ab")
    assert resumed[SETTINGS] and not new.get(SETTINGS)  # the first run's recipe has rules, the copy has their values
