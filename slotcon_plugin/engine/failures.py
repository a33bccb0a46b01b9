"""What ends a run from outside, in a sentence: a disk, a folder that is gone, another process."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MMLogger

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.errors import RunFailedError

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# gloo's and NCCL's words; torch has no classes for them that gloo uses.
_NO_ANSWER = ("Timed out waiting", "Application timeout", "Watchdog caught collective operation timeout")
_LEFT = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


@contextmanager
def failures_told(work_dir: str | Path) -> Iterator[None]:
    """Say in a sentence what the run can do nothing about, and leave a log of every rank that fails.

    mmengine's log file is the first rank's; what ends another one is written by
    :func:`~slotcon_plugin.command.run_command` to ``rankN.log`` in the work dir.

    Raises:
        RunFailedError: nothing can be written to the work dir; another process does not answer, or has ended.
    """
    try:
        try:
            yield
        except (OSError, RuntimeError) as error:
            if reason := _of_the_disk(error, work_dir):
                reason = f"nothing more can be written to the work dir {work_dir}: {reason}"
            elif get_world_size() > 1 and (reason := _of_another_process(str(error))):
                reason = f"{reason} ({str(error).splitlines()[0]})"
            else:
                raise
            raise RunFailedError(f"{reason}. {_how_to_go_on(work_dir)}") from error
    except BaseException:
        if get_rank() and Path(work_dir).is_dir():
            handler = logging.FileHandler(Path(work_dir) / f"rank{get_rank()}.log", delay=True)
            MMLogger.get_current_instance().addHandler(handler)
        raise


def _how_to_go_on(work_dir: str | Path) -> str:
    if numbered_checkpoints(work_dir):
        return "Checkpoints that are there are whole; mend this and go on with --resume"
    return "There is no checkpoint yet; mend this and give the same command again"


def _of_the_disk(error: Exception, work_dir: str | Path) -> OSError | None:
    """What keeps files from being written; torch.save ends with a RuntimeError that came of it."""
    cause = error if isinstance(error, OSError) else error.__context__
    known = isinstance(cause, OSError) and (cause.errno in _OF_THE_DISK or _is_in(cause.filename, work_dir))
    return cause if known else None


def _is_in(path: object, folder: str | Path) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    path, folder = Path(os.path.abspath(os.fsdecode(path))), Path(os.path.abspath(folder))
    return path == folder or folder in path.parents


def _of_another_process(words: str) -> str | None:
    if any(part in words for part in _NO_ANSWER):
        return (
            "another process has not answered for env_cfg.dist_cfg.timeout seconds: it, its machine or the network "
            "stands still"
        )
    if any(part in words for part in _LEFT):
        return "another process has ended, and its message says why"
    return None
