"""Checkpoints that are either whole or not there, and are read without running what is in them."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer, print_log

from slotcon_plugin.files import zip_damage

_NUMBERED = re.compile(r"(?:iter|epoch)_(\d+)\.pth")


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read what mmengine stores beside weights: its log's history buffers."""
    rebuild_array, rebuild_scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")]
    torch.serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, rebuild_array, rebuild_scalar, *dtypes])
    # A history buffer is stored with its methods, as getattr(HistoryBuffer, 'mean'); nothing else may be asked for.
    HistoryBuffer()  # the first one made in a process is what tells the class its methods
    torch.serialization.add_safe_globals([(_history_method, "builtins.getattr")])


def _history_method(owner: type, name: str) -> object:
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise ValueError(f"a checkpoint may only name methods of mmengine's HistoryBuffer, not {owner!r}.{name}")
    return getattr(owner, name)


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, except that a file appears under its name when it is complete.

    Use it with ``CheckpointHook(backend_args=dict(backend='atomic'))``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write to a temporary file in the same folder, flush it to the disk, rename it."""
        target = Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


register_backend("atomic", AtomicLocalBackend, force=True)


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is there: its archive opens and all checksums hold."""
    return zip_damage(path) is None


def find_resumable(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a work dir, or None; broken ones are named in the log and passed over."""
    numbered = [(int(m[1]), p) for p in Path(work_dir).glob("*.pth") if (m := _NUMBERED.fullmatch(p.name))]
    for _, path in sorted(numbered, reverse=True):
        if is_whole(path):
            return path
        print_log(f"{path} is damaged or cut short; trying the one before it", "current", logging.WARNING)
    return None
