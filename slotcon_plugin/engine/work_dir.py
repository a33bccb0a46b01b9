"""One run, one work dir: two at once would mix their checkpoints, and neither could be resumed."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a Unix: nothing to lock with
    fcntl = None

LOCK_FILE = ".in_use"
_claimed: dict[Path, IO[str]] = {}  # closing a file gives its lock back, so they stay open as long as the process


def claim_work_dir(work_dir: str | Path) -> None:
    """Make a folder this process's own until it ends, however it ends; among a launcher's processes the first claims.

    The lock belongs to the process and not to the data loader's workers, so that a killed run can be resumed at once.

    Raises:
        ValueError: a process that is still running has it; the message says which.
    """
    rank = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
    folder = Path(work_dir).resolve()
    if fcntl is None or rank or folder in _claimed:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise ValueError(
            f"work dir {work_dir} is in use by {owner}. Two runs would overwrite each other's checkpoints: stop that "
            "one, or give this one a --work-dir (detectron2: OUTPUT_DIR) of its own"
        ) from None
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M')}")
    file.flush()
    _claimed[folder] = file
