"""Checkpoints that are either whole or not there, and are read without running what is in them."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from torch import nn

from slotcon_plugin.checkpoints.runs import NUMBERED, RUN, numbered_checkpoints, run_record
from slotcon_plugin.checkpoints.safe_load import SAFE_GLOBALS
from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import replacing
from slotcon_plugin.registry import HOOKS

FORMER_ITER = "former_iter"
"""Key of a loaded checkpoint's ``meta``: the iteration by the count of the run that wrote it, if ours is another."""


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read what mmengine stores beside weights: its log's history buffers."""
    HistoryBuffer()  # the first one made in a process is what tells the class its methods
    # A history buffer is stored with its methods, as getattr(HistoryBuffer, 'mean'); nothing else may be asked for.
    histories = {"mmengine.logging.history_buffer.HistoryBuffer": HistoryBuffer, "builtins.getattr": _history_method}
    # Plain arrays: what is loaded here is saved again by a resumed run, under the name of its class.
    allowed = SAFE_GLOBALS | histories | {"numpy.ndarray": np.ndarray}
    torch.serialization.add_safe_globals([(value, name) for name, value in allowed.items()])


def _history_method(owner: type, name: str) -> object:
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise ValueError(f"a checkpoint may only name methods of mmengine's HistoryBuffer, not {owner!r}.{name}")
    return getattr(owner, name)


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, except that a file appears under its name when it is complete.

    Use it with ``SafeCheckpointHook(backend_args=dict(backend='atomic'))``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write to a temporary file in the same folder, flush it to the disk, rename it."""
        with replacing(filepath) as partial:
            partial.write_bytes(obj)


register_backend("atomic", AtomicLocalBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's, except that outdated checkpoints are deleted after the new one is there, not before.

    What a run was killed before deleting is deleted when it has been resumed and saves again. Where iterations are
    counted otherwise since then, checkpoints with higher numbers than the first new one would be taken for newer: they
    are deleted, too, or, where all are kept, renamed to ``former_iter_N.pth``.

    Iterations between two checkpoints are rounded up to whole steps of the optimiser, whose accumulated gradients no
    checkpoint holds. A run by the epoch that ends within one has a checkpoint of that, too.
    """

    _run: Any = None
    _left_behind: tuple[int, ...] = ()
    _recounted = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember whose checkpoint is resumed."""
        self._run = checkpoint.get("meta", {}).get(RUN)
        own = self._run is not None and self._run.get("id") == run_record(Path(runner.work_dir)).get("id")
        self._recounted = own and FORMER_ITER in checkpoint["meta"]

    def before_train(self, runner: Runner) -> None:
        """Find older checkpoints of the same run that the resumed one does not list as kept."""
        super().before_train(runner)
        if not self.by_epoch:
            passes = accumulated_passes(runner)
            self.interval = -(-self.interval // passes) * passes
        if self.max_keep_ckpts <= 0 or self._run is None or not runner.iter:
            return
        done = runner.epoch if self.by_epoch else runner.iter
        older = []
        for path in numbered_checkpoints(self.out_dir):
            kind, number = NUMBERED.fullmatch(path.name).groups()
            if self.filename_tmpl.startswith(kind) and number.isdigit() and int(number) < done:
                older.append((int(number), path))
        self._left_behind = tuple(
            number for number, path in older if number not in self.keep_ckpt_ids and _run_of(path) == self._run
        )

    def after_train_epoch(self, runner: Runner) -> None:
        """mmengine's, and at the end of a run that ends within an epoch."""
        super().after_train_epoch(runner)
        ended = runner.iter >= runner.max_iters and not self.is_last_train_epoch(runner)
        if self.by_epoch and self.save_last and ended and not self.every_n_epochs(runner, self.interval):
            self._save_checkpoint(runner)

    def _save_checkpoint(self, runner: Runner) -> None:
        """mmengine's, which takes the epoch at whose end it is called for a whole one."""
        if not self.by_epoch or runner.iter >= (runner.epoch + 1) * len(runner.train_dataloader):
            super()._save_checkpoint(runner)
        else:
            self._save_checkpoint_with_step(runner, runner.epoch + 1, {"epoch": runner.epoch, "iter": runner.iter})

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts <= 0:
            super()._save_checkpoint_with_step(runner, step, meta)
            self._set_former_aside(step)
            return
        kept = [*(n for n in self.keep_ckpt_ids if n != step and not (self._recounted and n > step)), step]
        outdated, kept = [*self._left_behind, *kept[: -self.max_keep_ckpts]], kept[-self.max_keep_ckpts :]
        self._left_behind = ()
        self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)  # ends with this step: mmengine deletes nothing then
        runner.message_hub.update_info("keep_ckpt_ids", kept)
        super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            for number in outdated:
                Path(self.out_dir, self.filename_tmpl.format(number)).unlink(missing_ok=True)
        self._set_former_aside(step)

    def _set_former_aside(self, step: int) -> None:
        """Once, when the first checkpoint by the new count is there."""
        if self._recounted and not self.by_epoch and is_main_process():
            for path in numbered_checkpoints(self.out_dir):
                kind, number = NUMBERED.fullmatch(path.name).groups()
                if kind == "iter" and int(number) > step and _run_of(path) == self._run:
                    path.unlink() if self.max_keep_ckpts > 0 else path.rename(path.with_name(f"former_{path.name}"))
        self._recounted = False


def _run_of(path: Path) -> Any:
    try:
        return open_checkpoint(path)["meta"][RUN]
    except (ValueError, LookupError, TypeError, OSError, EOFError):  # damaged, or another program's: not ours to delete
        return None


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, tensors mapped from the file and not read.

    Raises:
        UserError: it is not a checkpoint, or holds what may not be loaded.
    """
    allow_checkpoint_classes()
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error


def require_fit(state: Mapping[str, Any], model: nn.Module, what: str) -> None:
    """Compare weights with those of a model, key by key.

    Args:
        state: names to tensors.
        model: what they are for.
        what: what to call them in the message.

    Raises:
        UserError: a key is missing, unknown or has another shape.
    """
    have = {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}
    want = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wrong = sorted(key for key in have.keys() | want.keys() if have.get(key) != want.get(key))
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{what} does not fit the {type(model).__name__} of this config: {len(wrong)} keys differ, the first is "
            f"{first!r} (checkpoint {have.get(first, 'has none')}, model {want.get(first, 'has none')}); "
            "take the config that wrote it"
        )
