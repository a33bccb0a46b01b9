"""What one process does between epochs while the others wait."""

from __future__ import annotations

from abc import abstractmethod

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from slotcon_plugin.errors import UserError


class BetweenEpochsHook(Hook):
    """Does something before training, every few epochs and at the end, on the first rank.

    Args:
        interval: epochs from one time to the next.
    """

    priority = "LOW"  # after the teacher's update

    def __init__(self, interval: int) -> None:
        if interval < 1:
            raise UserError(f"{type(self).__name__}: interval must be at least 1 epoch, got {interval}")
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """What is there at the start; a run that is gone on with had it."""
        if runner.iter == 0:
            self._work_on_first_rank(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """After every `interval` epochs and the last, which may be the last by the clock."""
        ended = self.is_last_train_epoch(runner) or runner.iter >= runner.max_iters
        if ended or self.every_n_epochs(runner, self.interval):
            self._work_on_first_rank(runner)

    def _work_on_first_rank(self, runner: Runner) -> None:
        if is_main_process():
            with torch.random.fork_rng(devices=()):  # what the training draws stays what it was
                self.work(runner)
        barrier()  # that the others wait here, and not in a step, whose time a budget goes by

    @abstractmethod
    def work(self, runner: Runner) -> None:
        """See the class."""
