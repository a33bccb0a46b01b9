"""A finished run keeps its work dir when the one that was to take its place ends before it has left anything."""

import errno
import os
import signal

import numpy as np
import pytest
from mmengine.hooks import Hook
from PIL import Image

from slotcon_plugin.apis import pretrain
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.command import FAILED, run_command
from slotcon_plugin.config import load_config
from slotcon_plugin.engine import lock, work_dir
from slotcon_plugin.engine.lock import put_back_if_refused
from slotcon_plugin.engine.nan_guard import NonFiniteLossError
from slotcon_plugin.errors import RunFailedError, RunStoppedError, UserError
from slotcon_plugin.registry import HOOKS

FORMER = {"iter_3.pth": "weights", "20200101_000000/20200101_000000.log": "a log", "run.json": '{"id": "former"}'}
SMALL = {
    "train_cfg.max_epochs": 1,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.dataset.view_size": 64,
}


@HOOKS.register_module(force=True)
class AsItHappens(Hook):
    """Does what a test wants to happen, a function of this file."""

    def __init__(self, when, deed):
        setattr(self, when, lambda runner, *_, **__: globals()[deed](runner))


def refuse(runner):
    """As a photo does that cannot be read."""
    if runner.iter == 1:
        raise UserError("after a step")


def poison(runner):
    next(runner.model.student.parameters()).data.fill_(float("nan"))


def interrupt(runner):
    if runner.iter == 0:
        os.kill(os.getpid(), signal.SIGINT)


def a_bug(runner):
    raise KeyError("a bug")


def contents(folder):
    files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    files.pop(".in_use", None)
    return files


@pytest.fixture
def used(tmp_path):
    """The work dir of a finished run."""
    for name, text in FORMER.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
    return tmp_path / "run"


@pytest.fixture
def config(used, tmp_path):
    """(name, options) -> a pretraining on four photos that is to take the place of the finished run."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"photos/{i}.png")

    def build(name, options):
        cfg = load_config(f"configs/pretrain/{name}.py", {**SMALL, **options})
        cfg.train_dataloader.dataset.source = dict(type="ImageFolder", root=str(tmp_path / "photos"))
        cfg.work_dir, cfg.experiment_name = str(used), tmp_path.name
        cfg.visualizer.vis_backends = [dict(type="LocalVisBackend")]
        return cfg

    return build


def prototypes_frozen_with_mmengines_wrapper(cfg):
    cfg.optim_wrapper = dict(type="OptimWrapper", optimizer=cfg.optim_wrapper.optimizer)
    cfg.custom_hooks = [dict(type="FrozenPrototypesHook", share=0.5)]
    cfg.default_hooks.nan_guard = None
    cfg.default_hooks.pop("pictures", None)


@pytest.mark.parametrize(
    ("name", "options", "edit", "batch_mode", "message"),
    [
        (
            "vader_demo",
            {"train_dataloader.dataset.min_overlap_pixels": 0},
            None,
            None,
            r"set train_dataloader\.dataset\.min_overlap_pixels",
        ),
        ("vader_demo", {}, lambda cfg: cfg.pop("auto_scale_lr"), "accumulate", "the config states no total batch"),
        ("slotcon_demo", {}, prototypes_frozen_with_mmengines_wrapper, None, "FrozenPrototypesHook throws gradients"),
        ("vader_demo", {"train_dataloader.batch_size": 64}, None, "scale-lr", "4 photos do not fill one batch"),
    ],
)
def test_the_former_run_stays_where_it_is(used, config, name, options, edit, batch_mode, message):
    cfg = config(name, options)
    if edit:
        edit(cfg)
    with pytest.raises(UserError, match=message):
        pretrain(cfg, batch_mode=batch_mode, overwrite=True)
    assert contents(used) == FORMER
    assert sorted(path.name for path in used.parent.iterdir()) == ["photos", "run"]


def overwrite(config, when, deed, **options):
    cfg = config("vader_demo", {"train_dataloader.batch_size": 2, **options})
    cfg.custom_hooks = [dict(type="AsItHappens", when=when, deed=deed.__name__)]
    return pretrain(cfg, overwrite=True)


def test_what_a_run_has_begun_is_not_taken_away(used, config):
    """Its figures tell what has happened to it."""
    with pytest.raises(UserError, match="after a step"):
        overwrite(config, "after_train_iter", refuse, **{"default_hooks.logger.interval": 1})
    assert contents(used.with_name("run.old1")) == FORMER
    assert used.is_dir() and "iter_3.pth" not in contents(used)


@pytest.mark.parametrize(
    ("deed", "error", "left"),
    [
        (interrupt, RunStoppedError, ["iter_1.pth"]),
        (poison, NonFiniteLossError, ["nonfinite_iter_1.json", "nonfinite_iter_1.pth"]),
    ],
)
def test_what_the_first_step_leaves_is_not_taken_away(used, config, deed, error, left):
    """mmengine counts a step when all that is written in it has been written."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    try:
        with pytest.raises(error, match=rf"{left[-1]}"):
            overwrite(config, "before_train_iter", deed)
    finally:
        signal.signal(signal.SIGINT, former)
    assert [name for name in left if (used / name).is_file()] == left
    assert load_file(used / left[-1])["state_dict"]
    assert contents(used.with_name("run.old1")) == FORMER


BEFORE_THE_FIRST_STEP_IS_DONE = pytest.mark.parametrize("when", ["before_train", "before_train_iter"])


@BEFORE_THE_FIRST_STEP_IS_DONE
def test_the_log_of_a_bug_is_kept(used, config, when):
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: overwrite(config, when, a_bug))
    assert ended.value.code == FAILED
    assert contents(used) == FORMER
    (log,) = used.with_name("run.failed1").rglob("*.log")
    assert "KeyError: 'a bug'" in log.read_text()


@pytest.mark.parametrize(("module", "function"), [(work_dir, "write_json"), (lock, "lock_work_dir")])
def test_a_disk_that_fills_while_a_folder_is_set_aside(used, monkeypatch, module, function):
    write = getattr(module, function)

    def full(path, *more):
        if not (used / "iter_3.pth").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *more)

    monkeypatch.setattr(lock, "_locks", {})
    monkeypatch.setattr(module, function, full)
    with pytest.raises(UserError, match=r"cannot be used: .*No space left"):
        work_dir.claim_work_dir(used, {}, overwrite=True)
    assert contents(used) == FORMER
    assert [path.name for path in used.parent.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_renamed_is_left_as_it_is(used, monkeypatch):
    """As a mount point."""

    def busy(self, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(lock, "_locks", {})
    monkeypatch.setattr("pathlib.Path.rename", busy)
    with pytest.raises(UserError, match=r"cannot be used: .*busy"):
        work_dir.claim_work_dir(used, {}, overwrite=True)
    assert contents(used) == FORMER
    assert [path.name for path in used.parent.iterdir()] == ["run"]


@BEFORE_THE_FIRST_STEP_IS_DONE
def test_a_disk_that_is_full_before_the_first_step(used, config, monkeypatch, capsys, when):
    """The former run's checkpoints are not what the new one could go on from."""

    def full(runner):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(globals(), "full", full)
    with pytest.raises(RunFailedError, match=r"No space left.* There is no checkpoint yet; .* the same command again"):
        overwrite(config, when, full)
    assert contents(used) == FORMER
    assert "run is back in its place: the new run has saved nothing yet. --resume would go" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "stays"),
    [
        ("model_0000009.pth", True),
        ("epoch_1.pth", True),
        ("metrics.json", True),
        ("20260101_000000/vis_data/scalars.json", True),
        ("20260101_000000/20260101_000000.log", False),
        ("backbone.pth", False),
    ],
)
def test_runs_of_every_framework_are_judged_by_what_they_have_left(used, file, stays):
    aside = used.rename(used.with_name("run.old1"))
    (used / file).parent.mkdir(parents=True)
    (used / file).write_text("left")
    with pytest.raises(UserError), put_back_if_refused(used, aside):
        raise UserError("refused")
    assert (used / file).is_file() == stays
    assert contents(aside if stays else used) == FORMER
