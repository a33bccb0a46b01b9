"""A run's head, its one line of progress, and what is said at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.progress import BarColumn, Progress, TextColumn

from slotcon_plugin.devices import choose_device, unused_gpu
from slotcon_plugin.engine.console import SCREEN, show_head
from slotcon_plugin.engine.health import SlotHealthHook
from slotcon_plugin.engine.late import mean_on_host
from slotcon_plugin.models.distributed import unwrapped

Rows = Iterable[tuple[str, str]]
_REDRAW_S = 0.5
_OFTEN_S, _SELDOM_S, _SHARE = 30.0, 600.0, 0.05
_RECENT_S = 60.0


class ProgressHook(Hook):
    """Says what is trained and on what, how far it is, and what has been made; on the first rank.

    In a terminal the progress is one line that is drawn again. Elsewhere (CI, nohup, Slurm) a line is added for every
    5 % of the run, but for the first one not before 30 s and not later than 10 min after the last.

    Args:
        head: (label, text) of what is trained; device and log file are added.
        made: (label, text) of what the run has made, asked for at its end.
    """

    priority = "VERY_LOW"  # after what logs and saves

    def __init__(self, head: Callable[[Runner], Rows], made: Callable[[Runner], Rows]) -> None:
        self._head, self._made = head, made
        self._bar: Progress | None = None
        self._recent: deque[tuple[float, int]] = deque()  # (time, iterations done), of the last minute
        self._start = (0.0, 0)
        self._told = (0.0, 0.0)  # time and share at the last line

    def before_train(self, runner: Runner) -> None:
        """Print the head."""
        if not is_main_process():
            return
        rows = [*self._head(runner), ("device", _device(runner)), ("log", runner.logger.log_file)]
        show_head(f"\n{table(rows)}\n")
        if warning := unused_gpu():
            runner.logger.warning(warning)
        self._start = (time.monotonic(), runner.iter)
        self._recent.append(self._start)
        self._told = (self._start[0], runner.iter / runner.max_iters)
        if SCREEN.is_terminal:
            columns = (BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
            # no thread draws it: a data loader's worker that is forked meanwhile would inherit its lock
            self._bar = Progress(*columns, console=SCREEN, auto_refresh=False, transient=True)
            self._bar.add_task("the first step", total=runner.max_iters, completed=runner.iter)
            self._bar.start()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Move the line on, when it is time."""
        if not is_main_process():
            return
        now, done = time.monotonic(), runner.iter + 1
        if now - self._recent[-1][0] < _REDRAW_S:
            return
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, description=self._line(runner, done), refresh=True)
            return
        waited, share = now - self._told[0], done / runner.max_iters
        if waited > (_SELDOM_S if share - self._told[1] < _SHARE else _OFTEN_S) or self._told[0] == self._start[0]:
            self._told = (now, share)
            SCREEN.print(self._line(runner, done))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Say that it is being validated."""
        if self._bar and time.monotonic() - self._told[0] > _REDRAW_S:
            self._told = (time.monotonic(), self._told[1])
            text = f"validating: {batch_idx + 1:,} of {len(runner.val_dataloader):,}"
            self._bar.update(self._bar.task_ids[0], description=text, refresh=True)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say what was measured."""
        if is_main_process() and metrics:
            figures = ", ".join(f"{name.rpartition('/')[2]} {value:.4g}" for name, value in metrics.items())
            SCREEN.print(f"after iteration {runner.iter}: {figures}")

    def after_train(self, runner: Runner) -> None:
        """Say what has been made."""
        self.close()
        if is_main_process():
            seconds, steps = time.monotonic() - self._start[0], runner.iter - self._start[1]
            rows = [("done", f"{steps:,} steps in {duration(seconds)}"), *self._made(runner)]
            print_log(f"\n{table(rows)}", "current")

    def close(self) -> None:
        """Take the line away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _line(self, runner: Runner, done: int) -> str:
        (then, first), (now, last) = self._recent[0], self._recent[-1]
        photos = images_per_step(runner)
        left = (now - self._start[0]) / (done - self._start[1]) * (runner.max_iters - done)
        where = f"step {done:,} of {runner.max_iters:,}"
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            where = f"epoch {runner.epoch + 1} of {runner.max_epochs}"
        parts = [f"{done / runner.max_iters:4.0%}", where, f"{duration(left)} left"]
        parts.append(f"{(last - first) * photos / max(now - then, 1e-9):.3g} photos/s")
        if (loss := mean_on_host(runner.message_hub, "train/loss", 20)) is not None:
            parts.append(f"loss {loss:.4g}")
        return "  ".join([*parts, *filter(None, [health_of(runner)])])


def images_per_step(runner: Runner) -> int:
    """Of all processes together. mmdet's loaders have a batch sampler and no batch size of their own."""
    loader = runner.train_dataloader
    return (loader.batch_size or loader.batch_sampler.batch_size) * get_world_size()


def health_of(runner: Runner) -> str:
    """See :attr:`~slotcon_plugin.engine.health_alarms.Alarms.verdict`; empty for runs that nobody watches."""
    return next((hook.verdict for hook in runner.hooks if isinstance(hook, SlotHealthHook)), "")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def table(rows: Rows) -> str:
    """Lines of a label and a text; further lines of a text stand below its first."""
    return "\n".join(f"{label:<11} {text}".replace("\n", "\n" + 12 * " ") for label, text in rows)


def _device(runner: Runner) -> str:
    ranks = get_world_size()
    if next(unwrapped(runner.model).parameters()).device.type == "cpu":
        threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
        return f"CPU, {f'{ranks} processes of ' if ranks > 1 else ''}{threads}: {choose_device()[1]}"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "accelerator"
    if ranks > 1:
        return f"{ranks} x {name}"
    others = torch.cuda.device_count() - 1
    return name + (f" ({others} more are not used: tools/dist_train.sh)" if others > 0 else "")
