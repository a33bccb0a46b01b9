"""How every command ends: status 0 done, 2 wrong use, 1 failed, 75 stopped and worth being started again."""

from __future__ import annotations

import gc
import io
import logging
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from slotcon_plugin.errors import STOPPED, RunFailedError, RunStoppedError, UserError
from slotcon_plugin.files import from_here

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


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
        status = _say(error, WRONG_USE)
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
