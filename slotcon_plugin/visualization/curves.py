"""Curves of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from slotcon_plugin.page import draw
from slotcon_plugin.visualization.run_figures import LIMITS, Run, split_head, title_of

FROM_ZERO = {*LIMITS, "num_queries", "effective_rank", "center_norm", "data_time_share", "pixel_accuracy"}
LOGARITHMIC = {"grad_norm"}
# Okabe and Ito's colours, the readable ones on white; runs beyond them get another dash: matplotlib's and SVG's.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLUMNS = 3  # of the grid of charts
_TITLE = 52  # characters in a line over a chart
_DASHES = (("-", ""), ("--", "7 5"), (":", "0.1 4"), ("-.", "7 5 0.1 5"))


def line_style(number: int) -> tuple[str, str, str]:
    """Colour, matplotlib's dash and SVG's of a run by its place among those that are compared."""
    return _COLORS[number % len(_COLORS)], *_DASHES[number // len(_COLORS) % len(_DASHES)]


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Trailing mean of up to ``window`` values, ignoring NaN."""
    known = np.isfinite(values)
    window = max(min(window, len(values)), 1)
    # Each window by itself: a difference of running sums loses all that comes after one huge value.
    sums, counts = (
        sliding_window_view(np.pad(part, (window, 0)), window)[1:].sum(axis=1)
        for part in (np.where(known, values, 0.0), known)
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def plot_runs(runs: Sequence[Run], figures: Sequence[str], by_epoch: bool = False, window: int = 1) -> Image.Image:
    """Small multiples, one for each figure, a line a run.

    Args:
        runs: to compare.
        figures: names, see :func:`~slotcon_plugin.visualization.run_figures.figures_of`.
        by_epoch: x axis in epochs instead of iterations; makes runs of different batch sizes comparable.
        window: values to average over; the raw curve stays visible behind.
    """
    columns = min(_COLUMNS, len(figures))
    rows = -(-len(figures) // columns)
    canvas = Figure(figsize=(4.6 * columns, 3.0 * rows + 0.3 * (len(runs) // 4 + 1)), layout="constrained", dpi=110)
    grid = canvas.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, figures):
        base, _ = split_head(name)
        lines = []
        for number, run in enumerate(runs):
            color, dash, _ = line_style(number)
            style = dict(color=color, linestyle=dash)
            x, y = run.curve(name, by_epoch)
            if window > 1:
                axes.plot(x, y, **style, linewidth=0.8, alpha=0.3)
            marker = "o" if len(x) < 12 else None
            lines += axes.plot(x, smooth(y, window), **style, linewidth=1.8, marker=marker, markersize=3.5)
            size = run.num_prototypes(name)
            if base in LIMITS and size:
                axes.axhline(LIMITS[base](size), color=color, linestyle=(0, (4, 3)), linewidth=0.8)
        axes.set_title(fill(title_of(name), _TITLE), fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("epoch" if by_epoch else "iteration", fontsize=8)
        if base in LOGARITHMIC:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif base in FROM_ZERO:
            axes.set_ylim(bottom=0)  # so that a change looks as large as it is
    for axes in grid[len(figures) :]:
        axes.remove()
    if len(runs) > 1:
        # Not the axes' own labels: of these, names that begin with "_" are left out.
        names = [run.name for run in runs]
        legend = canvas.legend(
            lines, names, loc="outside upper center", ncols=min(4, len(runs)), frameon=False, fontsize=10
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        canvas.suptitle(runs[0].name, fontsize=11, parse_math=False)
    return draw(canvas)
