"""When the work between epochs is done, and by whom."""

from types import SimpleNamespace

import pytest
import torch

from slotcon_plugin.engine import between_epochs
from slotcon_plugin.engine.between_epochs import BetweenEpochsHook
from slotcon_plugin.errors import UserError


class Noting(BetweenEpochsHook):
    def __init__(self, interval=1):
        super().__init__(interval)
        self.noted = []

    def work(self, runner):
        self.noted.append(runner.iter)
        torch.rand(3)


def run_of(epochs, iterations=10):
    return SimpleNamespace(iter=0, epoch=0, max_epochs=epochs, max_iters=epochs * iterations)


def test_it_is_done_before_training_every_few_epochs_and_at_the_end():
    hook, runner = Noting(interval=2), run_of(epochs=3)
    hook.is_last_train_epoch = lambda runner: runner.epoch + 1 == runner.max_epochs
    hook.before_train(runner)
    for runner.epoch in range(3):
        runner.iter = 10 * (runner.epoch + 1)
        hook.after_train_epoch(runner)
    assert hook.noted == [0, 20, 30]
    ended_by_the_clock = SimpleNamespace(epoch=2, iter=25, max_epochs=20, max_iters=25)
    hook.after_train_epoch(ended_by_the_clock)
    assert hook.noted == [0, 20, 30, 25]
    hook.before_train(SimpleNamespace(iter=10))
    assert hook.noted == [0, 20, 30, 25], "a run that is gone on with had it"


def test_other_ranks_wait_for_the_first_one_and_not_in_a_step(monkeypatch):
    """A budget goes by the time of steps."""
    order, hook = [], Noting()
    monkeypatch.setattr(hook, "work", lambda runner: order.append("work"))
    monkeypatch.setattr(between_epochs, "barrier", lambda: order.append("wait"))
    for first in (True, False):
        monkeypatch.setattr(between_epochs, "is_main_process", lambda first=first: first)
        hook.before_train(run_of(epochs=3))
    assert order == ["work", "wait", "wait"]


def test_the_training_draws_what_it_would_have_drawn():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    Noting().before_train(run_of(epochs=1))
    assert torch.equal(torch.rand(4), expected)


def test_an_interval_is_an_epoch_at_least():
    with pytest.raises(UserError, match="Noting: interval must be at least 1 epoch, got 0"):
        Noting(0)
