"""A work dir is one process's at a time: its lock, and how a used one is set aside and put back."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mmengine.logging import print_log

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.engine.json_lines import HEALTH_FILE
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import PART_PREFIX, free_name

try:
    import fcntl
except ImportError:  # not a Unix: nothing to lock with
    fcntl = None

LOCK_FILE = ".in_use"
# What a run leaves, beside checkpoints, that is worth keeping: figures (metrics.json is detectron2's) and evidence.
_LEFT_BEHIND = (HEALTH_FILE, "*/vis_data/scalars.json", "metrics.json", "nonfinite_iter_*")
_locks: dict[Path, IO[str]] = {}  # closing a file gives its lock back, so they stay open as long as the process


def lock_work_dir(work_dir: Path) -> None:
    """Take a folder's lock, which ends with the process; the folder is made if need be.

    A lock of the process and not of the open file (as flock, and filelock with it, would make): a data loader's
    workers, which live on for a moment when a run is killed, must not keep the folder.

    Raises:
        UserError: another process that is still running has it.
    """
    folder = work_dir.resolve()
    if fcntl is None or folder in _locks:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"work dir {folder} is in use by {owner}. Two runs would overwrite each other's checkpoints: stop that "
            "one, or give this one another work dir (detectron2: OUTPUT_DIR)"
        ) from None
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M')}")
    file.flush()
    _locks[folder] = file


def set_aside(folder: Path) -> Path:
    """Rename a folder to the first of ``NAME.old1``, ``NAME.old2``, ... that is free; an empty one takes its place.

    Raises:
        UserError: a process that is still running has it, or this one's current folder lies in it: relative paths would
            go on leading into what was set aside.
        OSError: it cannot be done, and all is as it was.
    """
    folder = folder.resolve()
    if Path.cwd().is_relative_to(folder):
        raise UserError(f"{folder} would be set aside (renamed), and you are in it: start from another folder (cd ..)")
    lock_work_dir(folder)
    aside = free_name(folder, "old")
    (empty := _part_of(folder)).mkdir()
    try:
        folder.rename(aside)
    except OSError:  # a mount point, for one
        empty.rmdir()
        raise
    empty.rename(folder)
    lock = _locks.pop(folder, None)
    try:
        lock_work_dir(folder)
    except OSError:
        put_back(folder, aside)
        raise
    if lock:
        lock.close()
        (aside / LOCK_FILE).unlink()
    print_log(f"{folder} was set aside as {aside}", "current")
    return aside


@contextmanager
def put_back_if_refused(work_dir: str | Path, aside: Path | None) -> Iterator[None]:
    """Undo :func:`set_aside` for a run that ends before it has left anything to keep, whatever ends it.

    Its folder is judged, since the steps may have been made in other processes: a checkpoint, figures, or evidence of
    a loss that is not finite. Without these it goes, except that a bug's traceback is in the log: then it is kept.

    Args:
        work_dir: of the run.
        aside: where its folder was put; None = nowhere, there is nothing to undo.
    """
    try:
        yield
    except BaseException as error:
        if aside and not _has_left_something(Path(work_dir)):
            put_back(work_dir, aside, keep=not isinstance(error, (UserError, RunFailedError, KeyboardInterrupt)))
        raise


def put_back(folder: str | Path, aside: Path, keep: bool = False) -> None:
    """Undo :func:`set_aside`.

    Args:
        folder: the work dir; its lock is given up.
        aside: where it was put.
        keep: rename what is in its place now to the first free of ``NAME.failed1``, ...; else that is removed.
    """
    folder = Path(folder).resolve()
    refused = free_name(folder, "failed") if keep else _part_of(folder)
    folder.rename(refused)
    aside.rename(folder)
    if lock := _locks.pop(folder, None):
        lock.close()
    if not keep:
        shutil.rmtree(refused, ignore_errors=True)
    log = f" (its log is in {refused})" if keep else ""
    print_log(
        f"{folder} is back in its place: the new run has saved nothing yet{log}. --resume would go on with the former "
        "one; give the same command again to start anew",
        "current",
    )


def _part_of(folder: Path) -> Path:
    return folder.with_name(f"{PART_PREFIX}{os.getpid()}-{folder.name}")


def _has_left_something(work_dir: Path) -> bool:
    files = (file for pattern in _LEFT_BEHIND for file in work_dir.glob(pattern))
    return bool(numbered_checkpoints(work_dir)) or any(file.stat().st_size for file in files)
