"""What a run shows in the terminal: what this package says, and errors. All else is in the run's log file.

What mmengine and its family log, and the warnings of libraries, interest who looks for a fault; they are in the log
file, with everything that is shown. ``log_level = "DEBUG"`` in a config leaves the terminal to mmengine.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from sysconfig import get_paths
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.logging.logger import FilterDuplicateWarning
from rich.console import Console

_OURS = __name__.partition(".")[0]
_LIBRARIES = {"mmengine", "mmcv", "mmdet", "mmseg", "torch", "torchvision", "timm", "numpy", "PIL", "pycocotools"}
_INSTALLED = ("stdlib", "purelib", "platlib")
_numbers = count()


class _Screen(Console):
    """A terminal that may go away: a run does not end for it."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        """As rich's."""
        try:
            super().print(*args, **kwargs)
        except OSError:  # the terminal is closed, or the disk behind `>` full
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """The reader of the output (head, less) has gone."""
        self.quiet = True
        with suppress(OSError, ValueError):  # there is no file behind it
            # what is still buffered would be written at the exit, and be an error then
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


SCREEN = _Screen(highlight=False, markup=False, emoji=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Shows records of this package, warnings of the user's own code, and errors of anybody.

    What comes before the head of the run waits for it, but for warnings.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.addFilter(FilterDuplicateWarning())
        self._unwritten: list[logging.LogRecord] | None = []  # for the log file that is to come
        self._waiting: list[logging.LogRecord] | None = []
        self._process = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record, or keep it for later, or leave it to the log file."""
        self.note(record)
        origin = _origin()
        if origin != _OURS and record.levelno < (logging.ERROR if origin in _LIBRARIES else logging.WARNING):
            return
        if self._waiting is not None and record.levelno < logging.WARNING:
            self._waiting.append(record)
        else:
            self._show(record)

    def note(self, record: logging.LogRecord) -> None:
        """Keep a record until there is a log file."""
        if self._unwritten is not None:
            self._unwritten.append(record)

    def hand_over(self) -> list[logging.LogRecord]:
        """What has been kept for a log file; nothing is kept any more."""
        records, self._unwritten = self._unwritten or [], None
        return records

    def begin(self, head: str | None = None) -> None:
        """Show the head and what has waited for it."""
        waiting, self._waiting = self._waiting or [], None
        if head:
            MMLogger.get_current_instance().info(head)
        for record in waiting:
            self._show(record)

    def _show(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR and not is_main_process():
            return
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = mark + record.getMessage()
        if os.getpid() != self._process:  # a data loader's worker would draw the progress line a second time
            print(text, file=sys.__stdout__, flush=True)
        else:
            SCREEN.print(text, style={"": "", "warning: ": "yellow"}.get(mark, "red"))


@contextmanager
def run_console() -> Iterator[ExitStack]:
    """Show what a run has to say, from before there is a runner to its end, however it ends.

    Yields:
        What is to be done then.
    """
    logger = MMLogger.get_instance(f"{_OURS}-{next(_numbers)}")
    logger.handlers = [console := ConsoleHandler()]
    with warnings.catch_warnings(), ExitStack() as at_the_end:
        warnings.showwarning = _log_warning
        at_the_end.callback(console.begin)
        yield at_the_end


def show_head(text: str) -> None:
    """Log the head of a run; in the terminal what has been said before follows it."""
    logger = MMLogger.get_current_instance()
    console = console_of(logger)
    console.begin(text) if console else logger.info(text)


def console_of(logger: MMLogger) -> ConsoleHandler | None:
    """The terminal of a run, if this is the logger of one."""
    return next((handler for handler in logger.handlers if isinstance(handler, ConsoleHandler)), None)


def _log_warning(message: Warning | str, category: type, filename: str, line: int, *_: Any) -> None:
    """Into the log file; this package's own, and those that point at the user's code, are shown too."""
    logger, text = MMLogger.get_current_instance(), f"{category.__name__}: {message}"
    if not filename.startswith(tuple(get_paths()[name] for name in _INSTALLED)) or _OURS in Path(filename).parts:
        logger.warning(str(message))
        return
    _log_only(logger, logger.makeRecord(logger.name, logging.WARNING, filename, line, text, (), None))


def log_only(text: str) -> None:
    """Into the log file and not onto the terminal."""
    logger = MMLogger.get_current_instance()
    _log_only(logger, logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, (), None))


def _log_only(logger: logging.Logger, record: logging.LogRecord) -> None:
    for handler in logger.handlers:
        (handler.note if isinstance(handler, ConsoleHandler) else handler.handle)(record)


def _origin() -> str:
    """The package that has logged what is being handled: print_log and logging's own functions are passed over."""
    frame = sys._getframe(1)
    while frame and frame.f_globals.get("__name__", "").startswith(("logging", "mmengine.logging", __name__)):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").partition(".")[0] if frame else ""
