"""A table as Markdown, as CSV, and as an HTML page with bars."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from slotcon_plugin.benchmark.collect import collect
from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.tables import PUBLISHED, UNKNOWN, Cell, Table, build_table
from slotcon_plugin.files import write_text
from slotcon_plugin.page import draw, figure, fill, html_page

_COLOURS = {"measured": "#2a6fb0", "published": "#b9b9b9"}
_FIGURES = """\
<h2>All figures</h2>
<div class="wide"><table>
<tr><th>pretraining</th>{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for title, cells in table.rows %}
<tr><th>{{ title }}</th>
{% for cell in cells %}
<td>{{ cell.figure if cell.values | length != 1 or cell.kind == "published" }}
{% for seed, path in cell.sources %}
<a href="{{ link(path) }}" title="seed {{ seed }}">{{ "%.1f" | format(cell.values[loop.index0]) }}</a>
{% endfor %}
{% if cell.text %}<span class="note">{{ cell.text }}</span>{% endif %}
</td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% for note in notes %}<p class="note">{{ note }}</p>
{% endfor %}
"""


def write_tables(plan: Plan, folders: Iterable[str | Path], out: Path) -> list[Path]:
    """``table.md``, ``table.csv`` and ``table.html`` of a plan in a folder."""
    runs, problems = collect(folders)
    table = build_table(plan, runs, PUBLISHED if PUBLISHED.is_file() else None)
    notes = (*problems, *table.problems)
    texts = {
        "table.md": markdown(table, out) + "".join(f"\n{note}  " for note in notes) + ("\n" if notes else ""),
        "table.csv": csv_text(table, out),
        "table.html": table_page(table, out, notes),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def markdown(table: Table, base: str | Path) -> str:
    """Markdown whose measured figures link to their result files, relative to the folder ``base``.

    Sources of published figures and what missing ones need are footnotes, so that rows stay short.
    """
    sources, needs = Footnotes("S"), Footnotes("N")
    head = ["pretraining", *map(str, table.columns)]
    lines = [_line(head), _line(["---"] * len(head))]
    for title, cells in table.rows:
        lines.append(_line([title, *(_cell(cell, Path(base), sources, needs) for cell in cells)]))
    every = [cell for _, cells in table.rows for cell in cells]
    legend = []
    if any(len(cell.values) > 1 for cell in every):
        legend.append("**Measured**: mean ± standard deviation over the runs; each number links to a run's file.")
    elif any(cell.kind == "measured" for cell in every):
        legend.append("**Measured**: each figure links to its result file.")
    if sources.texts:
        legend.append(f"Published: {sources.listed()}.")
    if needs.texts:
        legend.append(f"{needs.listed()}.")
    if any(cell.text.startswith(UNKNOWN) for cell in every):
        legend.append(f"{UNKNOWN}: no figure that may be cited.")
    return "\n".join(lines) + "\n" + "".join(f"\n{text}\n" for text in legend)


class Footnotes:
    """Texts, each with a number that it keeps."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """``[S2]``, the same for the same text."""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.letter}{self.texts.index(text) + 1}]"

    def listed(self) -> str:
        """All of them with their marks."""
        return "; ".join(f"{self.mark(text)} {text}" for text in self.texts)


def _line(parts: list[str]) -> str:
    return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"


def _cell(cell: Cell, base: Path, sources: Footnotes, needs: Footnotes) -> str:
    if cell.kind == "missing":
        state, _, detail = cell.text.partition(": ")
        return f"*{state}*" + (f" {needs.mark(detail)}" if detail else "")
    if cell.kind == "published":
        return f"{cell.figure} {sources.mark(cell.text)}"
    links = [f"[{number}]({relative(path, base)})" for number, (_, path) in enumerate(cell.sources, 1)]
    if len(links) == 1:
        return f"[**{cell.figure}**]({relative(cell.sources[0][1], base)})"
    return f"**{cell.figure}** ({' '.join(links)})"


def relative(path: Path, base: Path) -> str:
    """A link from a folder to a file."""
    return Path(os.path.relpath(path, base)).as_posix()


def csv_text(table: Table, base: str | Path) -> str:
    """One line a cell; ``from`` holds its result files, its source, or what it needs to be run."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["pretraining", "task", "metric", "kind", "mean", "spread", "runs", "values", "seeds", "from"])
    for title, cells in table.rows:
        for column, cell in zip(table.columns, cells):
            files = " ".join(relative(path, Path(base)) for _, path in cell.sources)
            writer.writerow(
                [
                    *(title, column.title, column.metric, cell.kind),
                    cell.mean if cell.values else "",
                    "" if not cell.values or cell.spread is None else cell.spread,
                    len(cell.values),
                    " ".join(map(str, cell.values)),
                    " ".join(str(seed) for seed, _ in cell.sources),
                    files or cell.text,
                ]
            )
    return buffer.getvalue()


def table_page(table: Table, base: str | Path, notes: Sequence[str] = ()) -> str:
    """A page: a chart for each column that has a figure, then all figures, linked like :func:`markdown`'s."""
    charts = []
    for column, cells in zip(table.columns, zip(*(cells for _, cells in table.rows))):
        bars = {title: cell for (title, _), cell in zip(table.rows, cells) if cell.values}
        if bars:
            charts.append(figure(bar_chart(bars), str(column)))
    legend = "Blue: measured, the mean over the runs and their standard deviation. Grey: published elsewhere."
    figures = fill(_FIGURES, table=table, notes=notes, link=lambda path: relative(path, Path(base)))
    return html_page(table.name, [fill("<p>{{ legend }}</p>", legend=legend), *charts, figures])


def bar_chart(bars: dict[str, Cell]) -> Image.Image:
    """A bar from 0 a row, title -> cell, with its standard deviation and its figure."""
    canvas = Figure(figsize=(9, 0.5 + 0.32 * len(bars)), layout="constrained", dpi=120)
    axes = canvas.subplots()
    cells = list(bars.values())
    drawn = axes.barh(
        range(len(bars)),
        [cell.mean for cell in cells],
        xerr=[math.nan if cell.spread is None else cell.spread for cell in cells],
        color=[_COLOURS[cell.kind] for cell in cells],
        error_kw=dict(capsize=3, elinewidth=1.2),
        height=0.62,
    )
    labels = [cell.figure + (f" ({len(cell.values)} runs)" if len(cell.values) > 1 else "") for cell in cells]
    axes.bar_label(drawn, labels, padding=6)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    return draw(canvas)
