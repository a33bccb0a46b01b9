"""Runs that are asked to stop: by a scheduler that wants the machine, by Ctrl-C, by a launcher that has died."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.dist import barrier, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from slotcon_plugin.command import own_command
from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.engine.late import LateFlag
from slotcon_plugin.errors import RunStoppedError
from slotcon_plugin.models.distributed import all_reduce_sum, unwrapped
from slotcon_plugin.registry import HOOKS

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
_AGAIN_S = 2.0  # a launcher repeats the signal that the terminal has sent already; a person takes longer


class AnyRank:
    """Whether any rank says yes. With several ranks the sum is read an iteration later, when it has long arrived, and
    all ranks learn it after the same iteration."""

    def __init__(self) -> None:
        self._heard = LateFlag()

    def __call__(self, yes: bool, device: torch.device) -> bool:
        """Ask all ranks; call it after every iteration."""
        if get_world_size() == 1:
            return yes
        return self._heard(all_reduce_sum(torch.full((), float(yes), device=device))[0])


@contextmanager
def signals_given_back() -> Iterator[None]:
    """When the block ends, by an error too, signals do again what they did before, as a notebook needs.

    But for SIGTERM in a launcher's process that was stopped, see :class:`StopOnSignalHook`.
    """
    here = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in SIGNALS} if here else {}
    try:
        yield
    except RunStoppedError:
        if get_world_size() > 1:
            former.pop(signal.SIGTERM, None)
        raise
    finally:
        for number, handler in former.items():
            if handler is not None:  # else not Python's
                signal.signal(number, handler)


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Finishes the step, writes a checkpoint and ends the run when it is asked to stop.

    Listens to SIGTERM (preemption, time limit, a launcher that ends), SIGUSR1 (``srun --signal=USR1@90``), SIGINT
    (Ctrl-C) and SIGHUP (the terminal is gone). One process that is asked is enough: all ranks leave after the same
    iteration. A second Ctrl-C ends the process at once.

    From the stop to its end a launcher's process ignores SIGTERM: srun and torchrun send it to the others as soon as
    the first has left, and the status of one that it ends would hide that the run has stopped and can go on.
    """

    priority = "LOWEST"  # after the checkpoint hook: perhaps it has written just now

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._any_rank = AnyRank()
        self._former: dict[signal.Signals, object] = {}

    def before_train(self, runner: Runner) -> None:
        """Listen, and let the data loader's workers outlive signals that the whole process group gets."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python cannot
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
            self._former = {number: signal.signal(number, self._ask) for number in heard}
        loader = runner.train_dataloader
        loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop if any rank was asked to.

        Raises:
            RunStoppedError: the checkpoint is written.
        """
        asked = self._any_rank(self._asked is not None, next(unwrapped(runner.model).parameters()).device)
        if not asked or (runner.iter + 1) % accumulated_passes(runner):  # gradients of some passes would be lost
            return
        path = _save(runner)
        barrier()  # a rank that leaves early would have the launcher kill the one that writes
        if get_world_size() > 1 and signal.SIGTERM in self._former:
            self._former[signal.SIGTERM] = signal.SIG_IGN
        self.after_train(runner)
        name = self._asked.name if self._asked else "a signal to another process"
        name = "Ctrl-C" if self._asked == signal.SIGINT else name
        text = f"Stopped by {name} after iteration {runner.iter + 1}, saved as {path}; {_how_to_go_on()}"
        print_log(text, "current")
        raise RunStoppedError(text)

    def after_train(self, runner: Runner) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _ask(self, number: int, frame: object) -> None:
        if self._asked is not None and number == signal.SIGINT and time.monotonic() - self._asked_at > _AGAIN_S:
            raise KeyboardInterrupt
        if self._asked is None:
            self._asked, self._asked_at = signal.Signals(number), time.monotonic()
            if number == signal.SIGINT and sys.stderr.isatty():
                os.write(2, b"\nstopping after this step; Ctrl-C again ends at once, without a checkpoint\n")


def _how_to_go_on() -> str:
    """The command, if it is known: a launcher's is not."""
    script, words = sys.argv[0], [word for word in sys.argv[1:] if word != "--overwrite"]
    ours = script.endswith(("slotcon", "slotcon_plugin/__main__.py"))
    if get_world_size() > 1 or not (ours or os.path.basename(script) == "train.py"):
        return "--resume goes on from there"
    kept = [
        word
        for before, word in zip(["", *words], words)
        if word.partition("=")[0] != "--resume" and (before != "--resume" or word.startswith("-"))
    ]  # --resume FILE would go back to where this course began
    return f"go on with: {own_command() if ours else f'python {shlex.quote(script)}'} {shlex.join([*kept, '--resume'])}"


def _save(runner: Runner) -> str:
    """Write what the checkpoint hook would write now, unless it has."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch), None)
    name = f"iter_{runner.iter + 1}.pth"
    if hook is None:
        meta = {"epoch": runner.epoch, "iter": runner.iter + 1}
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False, meta=meta, backend_args={"backend": "atomic"})
    elif os.path.basename(hook.last_ckpt or "") != name:
        hook._save_checkpoint(runner)
    return os.path.join(runner.work_dir, name)


def _init_worker(former: Callable[[int], None] | None, worker_id: int) -> None:
    """In a loader's worker: ignore signals to the whole group. The training process gets them, and needs batches."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()
    if former:
        former(worker_id)


def _end_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
