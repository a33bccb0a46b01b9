"""What all commands share: how they end, how they are called, how they tell the time.

They end with status 0 done, 2 wrong use, 1 failed, 75 stopped and worth being started again.
"""

from __future__ import annotations

import ctypes
import gc
import io
import logging
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from slotcon_plugin.errors import STOPPED, RunFailedError, RunStoppedError, UserError
from slotcon_plugin.files import from_here

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's ``main`` and leave the process as its outcome says.

    What the user can mend (:class:`UserError`) and what a run reports about itself (:class:`RunFailedError`) is one
    message without a traceback. Anything else is a bug: its traceback goes to stderr and into the log file of the
    run, if there is one.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to end
            stream.reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False  # when the disk is full, a traceback a log line would hide the message
    try:
        status = main() or DONE
    except UserError as error:
        status = _say(_own_words(error), WRONG_USE)
    except RunStoppedError:
        status = STOPPED
    except RunFailedError as error:
        status = _say(error, FAILED)
    except KeyboardInterrupt:
        status = _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        status = FAILED
    except Exception:
        text = traceback.format_exc()
        print(text, file=sys.stderr, end="")
        _into_log_files(text)
        status = FAILED
    gc.freeze()  # looking for garbage among all that torch has imported takes a second, and the system frees it anyway
    sys.exit(status)


def own_command() -> str:
    """How to type the ``slotcon`` command of this environment, which need not be the active one."""
    script = Path(sys.executable).with_name("slotcon")
    if not script.is_file():
        python = "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)
        return f"{python} -m slotcon_plugin"
    if shutil.which("slotcon") == str(script):
        return "slotcon"
    return shlex.quote(from_here(script))


def end_with_parent(parent: int | None = None) -> None:
    """Be asked to stop (SIGTERM) when the process that started this one dies, even by SIGKILL; Linux only.

    Args:
        parent: its id; None = whichever is the parent now. If it has died already, this process is asked at once.
    """
    parent = parent or os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the system was told
        os.kill(os.getpid(), signal.SIGTERM)


def duration(seconds: float) -> str:
    """A length of time for people: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _own_words(error: UserError) -> str:
    """What it says, without the tracebacks that torch puts around it on its way from a loader's worker process."""
    kind = type(error)
    return str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].rstrip()


def _say(message: object, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    _into_log_files(f"error: {message}")
    return status


def _into_log_files(text: str) -> None:
    """Write to the files of mmengine's logger; a command that made no logger has none."""
    if "mmengine.logging" not in sys.modules:
        return
    from mmengine.logging import MMLogger

    record = logging.LogRecord("slotcon_plugin", logging.ERROR, "", 0, text, None, None)
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(record)
