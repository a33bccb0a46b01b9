"""A run's head, its one line of progress, and what is said at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from slotcon_plugin.devices import choose_device, crowded_cpu, unused_gpu
from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.engine.console import SCREEN, show_head
from slotcon_plugin.engine.health import SlotHealthHook
from slotcon_plugin.engine.late import mean_on_host
from slotcon_plugin.engine.progress_line import ProgressLine
from slotcon_plugin.files import from_here
from slotcon_plugin.models.distributed import unwrapped

Rows = Iterable[tuple[str, str]]


class ProgressHook(Hook):
    """Says what is trained and on what, how far it is, and what has been made; on the first rank.

    Args:
        head: (label, text) of what is trained; device and log file are added.
        made: (label, text) of what the run has made, asked for at its end.
    """

    priority = "VERY_LOW"  # after what logs and saves

    def __init__(self, head: Callable[[Runner], Rows], made: Callable[[Runner], Rows]) -> None:
        self._head, self._made = head, made
        self._line: ProgressLine | None = None
        self._first = 0

    def before_train(self, runner: Runner) -> None:
        """Print the head."""
        if is_main_process():
            _show_head(runner, self._head(runner))
            self._first = runner.iter
            self._line = ProgressLine(runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Move the line on, when it is time."""
        if self._line and self._line.moved(runner.iter + 1):
            self._line.show(self._text(runner, runner.iter + 1))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Say that it is being validated."""
        if self._line:
            self._line.meanwhile(f"validating: {batch_idx + 1:,} of {len(runner.val_dataloader):,}")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say what was measured."""
        if is_main_process() and metrics:
            figures = ", ".join(f"{name.rpartition('/')[2]} {value:.4g}" for name, value in metrics.items())
            SCREEN.print(f"after iteration {runner.iter}: {figures}")

    def after_train(self, runner: Runner) -> None:
        """Say what has been made."""
        self.close()
        if self._line:
            steps = (runner.iter - self._first) // accumulated_passes(runner)
            rows = [("done", f"{steps:,} step{'s' if steps != 1 else ''} in {self._line.took}"), *self._made(runner)]
            print_log(f"\n{table(rows)}", "current")

    def close(self) -> None:
        """Take the line away."""
        if self._line:
            self._line.close()

    def _text(self, runner: Runner, done: int) -> str:
        line, passes = self._line, accumulated_passes(runner)
        where = f"step {done // passes:,} of {runner.max_iters // passes:,}"
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            where = f"epoch {runner.epoch + 1} of {runner.max_epochs}"
        parts = [line.share, where, line.left, f"{line.pace * images_per_pass(runner.train_dataloader):.3g} photos/s"]
        if loss := mean_on_host(runner.message_hub, "train/loss", 20):  # 0 as long as a queue is empty
            parts.append(f"loss {loss:.4g}")
        return "  ".join([*parts, *filter(None, [health_of(runner)])])


class EvaluationProgressHook(Hook):
    """The same for a test.

    Args:
        head: (label, text) of what is tested; photos, device and log file are added.
    """

    priority = "VERY_LOW"

    def __init__(self, head: Rows) -> None:
        self._head = head
        self._line: ProgressLine | None = None

    def before_test(self, runner: Runner) -> None:
        """Print the head."""
        if is_main_process():
            _show_head(runner, [*self._head, ("photos", f"{len(runner.test_dataloader.dataset):,}")])
            self._line = ProgressLine(len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Move the line on, when it is time."""
        if (line := self._line) and line.moved(batch_idx + 1):
            pace = line.pace * images_per_pass(runner.test_dataloader)
            line.show("  ".join([line.share, line.left, f"{pace:.3g} photos/s"]))

    def after_test(self, runner: Runner) -> None:
        """Say how long it took; the figures have been told by who keeps them."""
        self.close()
        if self._line:
            print_log(f"\n{table([('done', f'in {self._line.took}')])}", "current")

    def close(self) -> None:
        """Take the line away."""
        if self._line:
            self._line.close()


def _show_head(runner: Runner, rows: Rows) -> None:
    show_head(f"\n{table([*rows, ('device', _device(runner)), ('log', from_here(runner.logger.log_file))])}\n")
    alone_on_cpu = get_world_size() == 1 and next(unwrapped(runner.model).parameters()).device.type == "cpu"
    for warning in filter(None, [unused_gpu(), crowded_cpu(torch.get_num_threads()) if alone_on_cpu else None]):
        runner.logger.warning(warning)


def images_per_pass(loader: DataLoader) -> int:
    """Of all processes together. mmdet's loaders have a batch sampler and no batch size of their own."""
    return (loader.batch_size or loader.batch_sampler.batch_size) * get_world_size()


def health_of(runner: Runner) -> str:
    """See :attr:`~slotcon_plugin.engine.health_alarms.Alarms.verdict`; empty for runs that nobody watches."""
    return next((hook.verdict for hook in runner.hooks if isinstance(hook, SlotHealthHook)), "")


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
