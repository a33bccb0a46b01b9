"""Runs of a given time: planned by what the first steps take, ended by the clock, gone on with as planned."""

import argparse
import math
import time

import pytest
import torch
from mmengine.hooks import CheckpointHook

from slotcon_plugin.apis import pretrain
from slotcon_plugin.arguments import seconds_of
from slotcon_plugin.command import duration
from slotcon_plugin.engine import budget as module
from slotcon_plugin.engine.budget import Budget, BudgetHook, plan_budget
from slotcon_plugin.engine.checkpoint import SafeCheckpointHook
from slotcon_plugin.errors import UserError


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("90s", 90), ("1h30m", 5400), ("1d2h", 93600)])
def test_times_are_read(text, seconds):
    assert seconds_of(text) == seconds
    assert seconds_of(duration(seconds)) == seconds  # what a message says can be given


@pytest.mark.parametrize("text", ["", "30", "m", "1.5h", "-3m", "0s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time such as 30m"):
        seconds_of(text)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def pace(monkeypatch, clock):
    """Steps of a trial take half a second, building and saving two."""

    class Trial:
        iterations_per_epoch, build_s, warm_up_s, save_s = 4, 2.0, 1.0, 2.0

        def __init__(self, cfg):
            clock[0] += 2

        def measure(self, limit_s, seconds, used):
            clock[0] += 3
            return 0.5

    monkeypatch.setattr(module, "_Trial", Trial)


def test_the_plan_fits_into_what_is_left(tiny_config, tmp_path, pace):
    cfg = tiny_config(tmp_path)
    # 100 s less 1 before, 5 for the trial, 2 to build, 1 for the slow first step, 2 to save; a step is .5 s and a third
    # of a checkpoint of 2 s
    steps = int(0.95 * 89 / (0.5 + 2 / 3))
    plan = plan_budget(cfg, 100.0, 99.0)
    assert plan == Budget(100.0, math.floor(100 * steps / 4) / 100, save_s=2.0)
    assert cfg.train_cfg.max_epochs == plan.epochs == 18


@pytest.mark.parametrize(
    ("hook", "a_step"),
    [
        (dict(interval=1, by_epoch=True), 0.5 + 2 / 4),  # an epoch is four steps
        (dict(interval=-1), 0.5),
        (dict(interval=3, by_epoch=False), 0.5 + 2 / 3),
        (None, 0.5),
    ],
)
def test_checkpoints_are_counted_as_often_as_they_are_written(hook, a_step, tiny_config, tmp_path, pace):
    cfg = tiny_config(tmp_path)
    cfg.default_hooks.checkpoint = hook
    assert plan_budget(cfg, 100.0, 99.0).epochs == math.floor(100 * int(0.95 * 89 / a_step) / 4) / 100


def test_a_resumed_run_keeps_its_plan_or_gets_a_new_one_for_more_time(tiny_config, tmp_path, pace):
    meta = {"iter": 20, "budget": {"seconds": 100.0, "epochs": 18.25, "used": 40.0, "save_s": 1.0}}
    meta["circumstances"] = {"iterations_per_epoch": 4}
    cfg = tiny_config(tmp_path)
    for same in (100.0, None):
        assert plan_budget(cfg, same, 100.0, meta) == Budget(100.0, 18.25, 40.0, 1.0)
        assert cfg.train_cfg.max_epochs == 18.25
    longer = plan_budget(cfg, 150.0, 100.0, meta)  # 100 s are left
    assert longer == Budget(150.0, math.floor(100 * (5 + int(0.95 * 100 / (0.5 + 2 / 3)) / 4)) / 100, 40.0, 2.0)
    cfg = tiny_config(tmp_path)
    assert plan_budget(cfg, math.inf, 100.0, meta) is None
    assert cfg.train_cfg.max_epochs == 2


def test_schedules_that_would_begin_after_the_planned_end_are_left_out(tiny_config, tmp_path, pace):
    """A config whose warm-up is a number has nothing else that is settled by the length."""
    cfg = tiny_config(tmp_path)
    cfg.param_scheduler = [
        dict(type="LinearLR", start_factor=0.1, end=20, convert_to_iter_based=True),
        dict(type="CosineAnnealingLR", begin=20, convert_to_iter_based=True),
    ]
    assert plan_budget(cfg, 100.0, 99.0).epochs < 20
    assert [schedule.type for schedule in cfg.param_scheduler] == ["LinearLR"]


def test_a_budget_of_no_steps_is_refused(tiny_config, tmp_path, pace):
    with pytest.raises(UserError, match=r"a budget of 12 s leaves time for 1 steps of 0\.5 s"):
        plan_budget(tiny_config(tmp_path), 12.0, 100.0)


@pytest.mark.parametrize(("done", "iterations_per_epoch"), [(0, 20000), (0, 777), (30000, 20000)])
def test_a_budget_of_a_thousandth_of_an_epoch_is_a_run(
    done, iterations_per_epoch, tiny_config, tmp_path, pace, monkeypatch
):
    monkeypatch.setattr(module._Trial, "iterations_per_epoch", iterations_per_epoch)
    meta = {"iter": done, "circumstances": {"iterations_per_epoch": iterations_per_epoch}} if done else None
    planned = int(0.95 * 10 / 0.5)  # 20 s less 5 for the trial, 2 to build, 1 for the first step, 2 to save
    cfg = tiny_config(tmp_path)
    cfg.default_hooks.checkpoint.interval = math.inf
    plan = plan_budget(cfg, 20.0, 100.0, meta)
    assert 0.9 * planned < plan.epochs * iterations_per_epoch - done <= planned


def test_a_first_step_beyond_the_budget_is_the_last_that_is_measured(tiny_config, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(module._Trial, "_train", lambda self, batches: measured.append(len(list(batches))) or 9.0)
    told = r"a budget of 8 s leaves time for no step: the first took 9 s, .*; at this pace 16 min are enough for"
    with pytest.raises(UserError, match=told):
        plan_budget(tiny_config(tmp_path), 8.0, 0.0)
    assert measured == [1]


def test_the_clock_ends_a_run_with_its_checkpoint(tiny, tmp_path, clock):
    runner = tiny(epochs=3)
    hook = BudgetHook(Budget(60.0, 3, used=10.0, save_s=4.0), began=100.0)

    class Slow(module.Hook):
        priority = "VERY_HIGH"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            clock[0] += 10

    runner.register_hook(Slow())
    runner.register_hook(hook)
    runner.train()
    # 50 s are left, steps take 10: after the third two more would leave none for the checkpoint
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["iter_3.pth"]
    meta = torch.load(tmp_path / "iter_3.pth", weights_only=False)["meta"]
    assert (meta["iter"], meta["budget"]) == (3, {"seconds": 60.0, "epochs": 3, "used": 40.0, "save_s": 4.0})
    again = tiny(epochs=3, resume=True)
    again.train()
    assert (again.iter, again.model.teacher_steps.item()) == (12, 12)


def test_the_clock_ends_a_run_with_a_whole_step_of_the_optimiser(tiny, clock):
    runner = tiny(epochs=6, optim_wrapper=dict(accumulative_counts=4))

    class Slow(module.Hook):
        priority = "VERY_HIGH"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            clock[0] += 1

    runner.register_hook(Slow())
    runner.register_hook(BudgetHook(Budget(20.0, 6, save_s=2.0), began=clock[0]))
    runner.train()
    # after 12 passes a step of four, a pass more and the checkpoint would fit; after 16 they would not
    assert (runner.iter, runner.model.teacher_steps.item()) == (16, 4)


def test_the_first_step_of_a_command_is_no_slow_step(tiny, clock):
    """It compiles, and starts workers."""
    runner = tiny(epochs=3)

    class First(module.Hook):
        priority = "VERY_HIGH"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            clock[0] += 1 if runner.iter else 40

    runner.register_hook(First())
    runner.register_hook(BudgetHook(Budget(60.0, 3, save_s=2.0), began=clock[0]))
    runner.train()
    assert runner.iter == 12


@pytest.mark.parametrize("end", ["clock", "length"])
def test_a_run_with_checkpoints_by_the_epoch_ends_within_one_with_a_checkpoint(tiny, tmp_path, clock, end):
    def build(**kwargs):
        runner = tiny(**kwargs)
        runner._hooks = [hook for hook in runner.hooks if type(hook) is not CheckpointHook]
        runner.register_hook(SafeCheckpointHook(interval=5, by_epoch=True))
        return runner

    class Slow(module.Hook):
        priority = "VERY_HIGH"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            clock[0] += 10

    runner = build(epochs=4 if end == "clock" else 1.5)
    if end == "clock":
        runner.register_hook(Slow())
        runner.register_hook(BudgetHook(Budget(75.0, 4), began=clock[0]))
    runner.train()
    assert runner.iter == 6
    meta = torch.load(tmp_path / "epoch_2.pth", weights_only=True)["meta"]
    assert (meta["epoch"], meta["iter"]) == (1, 6)
    again = build(epochs=4, resume=True)
    again.train()
    assert (again.iter, again.model.teacher_steps.item()) == (16, 16)


def test_the_trial_computes_activations_as_the_run_will(tiny_config, tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.activation_checkpointing = ["student.backbone"]
    assert "forward" in vars(module._Trial(cfg).model.student["backbone"])  # in the place of its own


def test_a_probe_between_two_epochs_is_no_slow_step(tiny, clock):
    runner = tiny(epochs=3)  # of 4 iterations
    hook = BudgetHook(Budget(100.0, 3, 0.0, save_s=4.0), clock[0])

    class Probe(module.Hook):
        def before_train(self, runner):
            clock[0] += 20

        def after_train_epoch(self, runner):
            clock[0] += 20

        def after_train_iter(self, *_, **__):
            clock[0] += 1

    for one in (Probe(), hook):
        runner.register_hook(one)
    runner.train()
    assert runner.iter == 12 and clock[0] == 100 + 80 + 12


def test_a_run_of_a_part_of_an_epoch(tiny, tmp_path):
    runner = tiny(epochs=1.6)
    runner.train()
    assert (runner.iter, runner.model.total_steps) == (6, 6)
    assert (tmp_path / "iter_6.pth").is_file()
    longer = tiny(epochs=2, resume=True)
    longer.train()
    assert longer.iter == 8


@pytest.mark.slow
def test_a_run_keeps_to_its_time(tiny_config, tmp_path, monkeypatch):
    """Measured for real, on a machine that may be busy."""
    monkeypatch.setattr(module, "_MEASURED", 6)
    cfg = tiny_config(tmp_path)
    cfg.work_dir = str(tmp_path / "run")
    cfg.default_hooks.checkpoint.interval = 10_000
    cfg.log_level = "WARNING"
    began = time.monotonic()
    runner = pretrain(cfg, budget=12.0)
    assert time.monotonic() - began < 12.0 + 3
    assert runner.iter >= 10
    meta = torch.load(runner.message_hub.get_info("last_ckpt"), weights_only=False)["meta"]
    assert (meta["iter"], meta["budget"]["epochs"]) == (runner.iter, cfg.train_cfg.max_epochs)
    assert 1 < meta["budget"]["used"] < 12.0 + 3
