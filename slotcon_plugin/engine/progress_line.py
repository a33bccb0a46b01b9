"""One line that says how far something is: drawn again in a terminal, added now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque

from rich.progress import BarColumn, Progress, TextColumn

from slotcon_plugin.command import duration
from slotcon_plugin.engine.console import SCREEN

_REDRAW_S = 0.5
_OFTEN_S, _SELDOM_S, _SHARE = 30.0, 600.0, 0.05
_RECENT_S = 60.0


class ProgressLine:
    """How far something is.

    Where there is no terminal (CI, nohup, Slurm) a line is added for every 5 % of the whole, but for the first one not
    before 30 s and not later than 10 min after the last.

    Args:
        total: what there is to be done.
        done: of it, before the start.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self._done = total, done
        self._start = (time.monotonic(), done)
        self._recent: deque[tuple[float, int]] = deque([self._start])  # (time, done), of the last minute
        self._told = (self._start[0], done / total)  # time and share at the last line
        self._bar: Progress | None = None
        if SCREEN.is_terminal:
            columns = (BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
            # no thread draws it: a data loader's worker that is forked meanwhile would inherit its lock
            self._bar = Progress(*columns, console=SCREEN, auto_refresh=False, transient=True)
            self._bar.add_task("the first step", total=total, completed=done)
            self._bar.start()

    def moved(self, done: int) -> bool:
        """Note that so much is done; True when it is time to :meth:`show` it."""
        now = time.monotonic()
        if now - self._recent[-1][0] < _REDRAW_S:
            return False
        self._done = done
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()
        waited, share = now - self._told[0], done / self.total
        often = _OFTEN_S if share - self._told[1] >= _SHARE else _SELDOM_S
        if self._bar is None and waited <= often and self._told[0] != self._start[0]:
            return False
        self._told = (now, share)
        return True

    @property
    def share(self) -> str:
        """Done of the total."""
        return f"{self._done / self.total:4.0%}"

    @property
    def left(self) -> str:
        """Time, by the pace since the start."""
        seconds, done = self._recent[-1][0] - self._start[0], self._done - self._start[1]
        return f"{duration(seconds / done * (self.total - self._done))} left"

    @property
    def pace(self) -> float:
        """Done in a second of the last minute."""
        (then, first), (now, last) = self._recent[0], self._recent[-1]
        return (last - first) / max(now - then, 1e-9)

    @property
    def took(self) -> str:
        """Time since the start."""
        return duration(time.monotonic() - self._start[0])

    def show(self, text: str) -> None:
        """Draw the line, or add one."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done, description=text, refresh=True)
        else:
            SCREEN.print(text)

    def meanwhile(self, text: str) -> None:
        """In a terminal, put another text in the line's place; not more than twice a second."""
        if self._bar and time.monotonic() - self._told[0] > _REDRAW_S:
            self._told = (time.monotonic(), self._told[1])
            self._bar.update(self._bar.task_ids[0], description=text, refresh=True)

    def close(self) -> None:
        """Take the line away."""
        if self._bar:
            self._bar.stop()
            self._bar = None
