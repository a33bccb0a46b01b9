"""Runs of a given time: the first steps are measured, the length follows, and the clock has the last word.

The steps that are measured are those of a trial that is thrown away. So the length of the run, and with it every
schedule, is known before its first step, and the run is the same as one whose config names this length.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice, repeat
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from slotcon_plugin.command import duration
from slotcon_plugin.config import fit_schedules, settle
from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.engine.resume import CIRCUMSTANCES
from slotcon_plugin.engine.runner import compute_activations_twice
from slotcon_plugin.engine.stop import AnyRank
from slotcon_plugin.errors import UserError
from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.models.distributed import all_reduce_sum, unwrapped
from slotcon_plugin.registry import MODELS

BUDGET = "budget"
"""Key of a checkpoint's ``meta``: the :class:`Budget` of the run that wrote it, as a dict."""
_WARM_UP, _MEASURED, _FEWEST = 3, 20, 10  # steps
_FOR_TRIAL = 0.04  # share of the time that is left, for the measured steps
_PLANNED = 0.95  # the rest is for logs, pictures, and a machine that slows down


@dataclass(frozen=True)
class Budget:
    """How long a run may take, over all its stops and resumptions.

    Attributes:
        seconds: from the first command's start to the last checkpoint.
        epochs: that were planned for it.
        used: seconds, before this command.
        save_s: seconds that the last checkpoint takes.
    """

    seconds: float
    epochs: float
    used: float = 0.0
    save_s: float = 0.0


def plan_budget(
    cfg: Config, seconds: float | None, began: float, checkpoint: Mapping[str, Any] | None = None
) -> Budget | None:
    """Set the length of a run, ``train_cfg.max_epochs``, by the time that it may take, and fit its schedules; in place.

    Args:
        cfg: a pretraining config whose batch is settled; the process group is started.
        seconds: of the whole run. None = as the checkpoint has it, infinity = as many epochs as the config says.
        began: ``time.monotonic()`` at the start of the command.
        checkpoint: ``meta`` of the one that the run goes on from. With the same budget the plan stays the same.

    Raises:
        UserError: there is not time enough for some steps.
    """
    checkpoint = checkpoint or {}
    former = Budget(**checkpoint[BUDGET]) if BUDGET in checkpoint else None
    seconds = seconds or (former.seconds if former else math.inf)
    if math.isinf(seconds):
        fit_schedules(cfg._cfg_dict)
        return None
    if former and former.seconds == seconds:
        budget = former
    else:
        used = former.used if former else 0.0
        done = checkpoint["iter"] / checkpoint[CIRCUMSTANCES]["iterations_per_epoch"] if checkpoint else 0.0
        box = [_plan(cfg, seconds, used, done, began)]
        broadcast_object_list(box)  # the clocks of ranks differ
        budget = box[0]
    cfg.train_cfg.max_epochs = budget.epochs
    fit_schedules(cfg._cfg_dict)
    spent = f", {duration(budget.used)} of it are used" if budget.used else ""
    print_log(f"The run has a budget of {duration(seconds)}{spent}: {budget.epochs:g} epochs", "current")
    return budget


def _plan(cfg: Config, seconds: float, used: float, done: float, began: float) -> Budget:
    """For a run of which ``done`` epochs are done."""
    trial = _Trial(cfg)
    left = seconds - used - (time.monotonic() - began)
    pace = trial.measure(left * _FOR_TRIAL, seconds, used)
    hook = cfg.default_hooks.get("checkpoint") or {}
    interval = hook.get("interval", -1) * (trial.iterations_per_epoch if hook.get("by_epoch", True) else 1)
    saving = trial.save_s / interval if interval > 0 else 0.0
    if cfg.model.get("compile"):
        torch.compiler.reset()  # CUDA graphs would keep the trial's memory
    left = seconds - used - (time.monotonic() - began) - trial.build_s - trial.warm_up_s - trial.save_s
    iterations = int(_PLANNED * left / (pace + saving))
    if iterations < _FEWEST:
        raise UserError(_too_little(seconds, f"{max(iterations, 0)} steps of {pace:.2g} s", 100 * pace))
    print_log(f"Measured: {pace:.3g} s a step, so {iterations} steps", "current")
    epochs = done + iterations / trial.iterations_per_epoch
    digits = 10 ** max(2, 1 - math.floor(math.log10(iterations / trial.iterations_per_epoch)))
    epochs = math.floor(digits * epochs + 1e-6) / digits  # of a large data set the run may be a thousandth of an epoch
    return Budget(seconds, epochs, used, trial.save_s)


def _too_little(seconds: float, leaves: str, more: float) -> str:
    """What is wrong, and what to give in whole minutes: a pace is that of a moment."""
    return (
        f"a budget of {duration(seconds)} leaves time for {leaves}, too few to learn anything; at this pace "
        f"{duration(60 * math.ceil((seconds + more) / 60))} are enough for a hundred"
    )


class _Trial:
    """Model, optimiser and loader of a config, to be measured."""

    def __init__(self, cfg: Config) -> None:
        began, cfg = time.monotonic(), copy.deepcopy(cfg)
        settle(cfg)
        self.device = get_device()
        torch.backends.cudnn.benchmark = cfg.get("env_cfg", {}).get("cudnn_benchmark", False)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
            self.model: BasePretrainer = MODELS.build(cfg.model).to(self.device).train()
            compute_activations_twice(self.model, cfg.get("activation_checkpointing") or ())
            self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.iterations_per_epoch = len(self.loader)
        self.build_s = time.monotonic() - began
        self.save_s = self.warm_up_s = math.nan
        self.folder = cfg.work_dir

    def measure(self, limit_s: float, seconds: float, used: float) -> float:
        """Mean seconds of a step of some, waits for photos included, the same on every rank.

        Raises:
            UserError: there is not one batch of photos, or the first step alone takes longer than the run may.
        """
        if not self.iterations_per_epoch:
            raise UserError(f"{len(self.loader.dataset)} photos do not fill one batch")
        batches = chain.from_iterable(repeat(self.loader))
        warm_up = self._train(islice(batches, 1))
        if warm_up > seconds - used:  # the same on every rank, as what is left by a clock is not
            raise UserError(_too_little(seconds, f"no step: the first took {warm_up:.2g} s", 100 * warm_up))
        self._train(islice(batches, _WARM_UP - 2))
        first = self._train(islice(batches, 1))
        box = [min(max(int(limit_s / first), 3), _MEASURED)]
        broadcast_object_list(box)  # of one clock: a rank that took a step more would wait for the others for ever
        count = box[0]
        pace = self._train(islice(batches, count)) / count
        self.warm_up_s = max(warm_up - pace, 0.0)  # the run's own first step takes as long
        began = time.monotonic()
        with tempfile.TemporaryFile(dir=self.folder) as file:
            torch.save([self.model.state_dict(), self.wrapper.state_dict()], file)
        self.save_s = time.monotonic() - began
        return pace

    def _train(self, batches: Iterator[Any]) -> float:
        """Seconds, a mean over ranks."""
        began = time.monotonic()
        for batch in batches:
            self.model.train_step(batch, optim_wrapper=self.wrapper)
            self.model.update_teacher()
        if self.device == "cuda":
            torch.cuda.synchronize()
        (total,) = all_reduce_sum(torch.tensor(time.monotonic() - began, device=self.device))
        return total.item() / get_world_size()


class BudgetHook(Hook):
    """Ends a run when its time is up, with a checkpoint and status 0.

    Args:
        budget: of the run.
        began: ``time.monotonic()`` at the start of the command.
    """

    def __init__(self, budget: Budget, began: float) -> None:
        self.budget = budget
        self.began = began
        self._any_rank = AnyRank()
        self._last = self._slowest = 0.0
        self._warm = False

    @property
    def used(self) -> float:
        """Seconds of the run so far."""
        return self.budget.used + time.monotonic() - self.began

    def before_train(self, runner: Runner) -> None:
        """Start the clock of iterations."""
        self._last = self.used

    def before_train_epoch(self, runner: Runner) -> None:
        """Probes and pictures between two epochs are no slow step, of which two more would have to fit."""
        self._last = self.used

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what is used; a checkpoint carries it on."""
        checkpoint["meta"][BUDGET] = asdict(self.budget) | {"used": self.used}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """End with this step if another and a pass more, as long as the longest, and a checkpoint might not fit."""
        now = self.used
        if not self._warm:  # the first compiles, starts workers, looks for the fastest convolutions
            self._warm, self._last = True, now
        self._slowest, self._last = max(self._slowest, now - self._last), now
        device = next(unwrapped(runner.model).parameters()).device
        passes = accumulated_passes(runner)
        late = self._any_rank(now + (1 + passes) * self._slowest + self.budget.save_s > self.budget.seconds, device)
        if late and runner.iter + 1 < runner.max_iters and (runner.iter + 1) % passes == 0:
            print_log(
                f"Of the budget of {duration(self.budget.seconds)}, {duration(now)} are used; another step as long as "
                f"the longest ({self._slowest:.2g} s) and the checkpoint might not fit. The run ends after iteration "
                f"{runner.iter + 1} of {runner.max_iters}, before its learning rate has come down: steps got slower "
                "than those that were measured, or probes and pictures took their time. --resume --budget with more "
                "time goes on",
                "current",
                logging.WARNING,
            )
            runner.train_loop.end_with_this_iteration()
