"""A table as Markdown, as CSV, and as an HTML page with bars."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure
from PIL import Image

from slotcon_plugin.benchmark.collect import collect
from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.tables import NOT_PLANNED, PUBLISHED, Cell, Table, build_table
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text
from slotcon_plugin.page import draw, figure, fill, html_page
from slotcon_plugin.results import read_result

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


def write_tables(
    plan: Plan, folders: Iterable[str | Path], out: Path, steps: Collection[Path] | None = None
) -> list[Path]:
    """``table.md``, ``table.csv`` and ``table.html`` of a plan in a folder; ``steps``: see :func:`collect`."""
    runs, problems = collect(folders, steps)
    table = build_table(plan, runs, PUBLISHED if PUBLISHED.is_file() else None, strict=False)
    notes = (*problems, *table.problems)
    texts = {
        "table.md": markdown(table, out) + "".join(f"\n{note}  " for note in notes) + ("\n" if notes else ""),
        "table.csv": csv_text(table, out),
        "table.html": table_page(table, out, notes),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def markdown(table: Table, base: str | Path, page: str | Path | None = None) -> str:
    """A Markdown table a task, with few columns and no empty cells, so that it can be read at any width.

    Rows without a figure of the task are named below it, with what they need.

    Args:
        table: of a plan.
        base: folder that links are relative to.
        page: what :func:`runs_page` has been written to: a figure links to the runs behind it. None = to result files.
    """
    sources, parts = Footnotes(), []
    for title, columns in _tasks(table).items():
        rows = [(name, [cells[i] for i in columns]) for name, cells in table.rows]
        known = [(name, cells) for name, cells in rows if any(cell.values for cell in cells)]
        parts.append(f"### {title}\n")
        if known:
            head = ["pretraining", *(table.columns[i].metric for i in columns)]
            lines = [_line(head), _line(["---", *["---:"] * len(columns)])]
            lines += [
                _line([name, *(_cell(cell, Path(base), page, f"{name}: {title}", sources) for cell in cells)])
                for name, cells in known
            ]
            parts.append("\n".join(lines) + "\n")
        if wanting := _wanting([(name, cells) for name, cells in rows if (name, cells) not in known]):
            parts.append(f"{'Not yet run' if known else 'Nothing of it has been run yet'}: {wanting}.\n")
    if any(len(cell.values) > 1 for _, cells in table.rows for cell in cells):
        parts.append("Mean ± standard deviation over runs with different seeds; a figure links to its runs.\n")
    if sources.texts:
        parts.append(f"Published: {sources.listed()}.\n")
    return "\n".join(parts)


def brief(table: Table, base: str | Path, page: str | Path, keys: Sequence[str]) -> str:
    """One small table: the first metric of each of the tasks named, for the pretrainings measured on all of them, or on
    all that the plan measures them on.

    Raises:
        UserError: the plan has no such task.
    """
    columns = []
    for key in keys:
        found = [i for i, column in enumerate(table.columns) if column.key == key]
        if not found:
            raise UserError(f"table {table.name}/{key}: the plan has no task {key}")
        columns.append(found[0])
    head = ["pretraining", *(str(table.columns[i]) for i in columns)]
    lines = [_line(head), _line(["---", *["---:"] * len(columns)])]
    for name, cells in table.rows:
        asked = [cells[i] for i in columns if cells[i].text != NOT_PLANNED]
        if asked and all(cell.kind == "measured" for cell in asked):
            texts = (
                _cell(cells[i], Path(base), page, f"{name}: {table.columns[i].title}", Footnotes()) for i in columns
            )
            lines.append(_line([name, *texts]))
    return "\n".join(lines) + "\n"


def runs_page(table: Table, base: str | Path) -> str:
    """A page of all runs behind a table, a section for each row and task: seeds, figures, time, command, files."""
    parts = [f"# Runs of {table.name}\n", "Written by `tools/benchmark_table.py`, from the result files.\n"]
    for name, cells in table.rows:
        for title, columns in _tasks(table).items():
            measured = [(table.columns[i], cells[i]) for i in columns if cells[i].kind == "measured"]
            if not measured:
                continue
            lines = [
                _line(["seed", *(column.metric for column, _ in measured), "minutes", "file"]),
                _line(["---:"] * (len(measured) + 2) + ["---"]),
            ]
            sources = sorted({source for _, cell in measured for source in cell.sources})
            values = [{path: value for (_, path), value in zip(cell.sources, cell.values)} for _, cell in measured]
            for seed, path in sources:
                figures = [f"{found[path]:.1f}" if path in found else "–" for found in values]
                minutes = f"{read_result(path)['wall_time_s'] / 60:.0f}"
                file = f"[{path.parent.name}/{path.name}]({relative(path, Path(base))})"
                lines.append(_line([str(seed), *figures, minutes, file]))
            parts.append(f"## {name}: {title}\n")
            parts.append("\n".join(lines) + "\n")
            parts.append(f"The first one's command:\n\n    {read_result(sources[0][1])['command']}\n")
    return "\n".join(parts)


def anchor(heading: str) -> str:
    """The fragment that GitHub and mkdocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _tasks(table: Table) -> dict[str, list[int]]:
    """Title of a task -> its columns."""
    tasks: dict[str, list[int]] = {}
    for index, column in enumerate(table.columns):
        tasks.setdefault(column.title, []).append(index)
    return tasks


def _wanting(rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """``SlotCon (about 3 h; data: coco), VADeR (...)``: rows of the plan, of which it is known what they need."""
    needs = ((name, cells[0].text.partition("to run: ")[2].partition("; ")[2]) for name, cells in rows)
    return ", ".join(f"{name} ({need})" for name, need in needs if need)


class Footnotes:
    """Sources, each with a number that it keeps."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """``[S2]``, the same for the same text."""
        if text not in self.texts:
            self.texts.append(text)
        return f"[S{self.texts.index(text) + 1}]"

    def listed(self) -> str:
        """All of them with their marks."""
        return "; ".join(f"{self.mark(text)} {text}" for text in self.texts)


def _line(parts: list[str]) -> str:
    return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"


def _cell(cell: Cell, base: Path, page: str | Path | None, heading: str, sources: Footnotes) -> str:
    if cell.kind == "missing":
        return "–"
    if cell.kind == "published":
        return f"{cell.figure} {sources.mark(cell.text)}"
    if page:
        return f"[{cell.figure}]({relative(Path(page), base)}#{anchor(heading)})"
    if len(cell.sources) == 1:
        return f"[{cell.figure}]({relative(cell.sources[0][1], base)})"
    links = [f"[{number}]({relative(path, base)})" for number, (_, path) in enumerate(cell.sources, 1)]
    return f"{cell.figure} ({' '.join(links)})"


def relative(path: Path, base: Path) -> str:
    """A link from a folder to a file."""
    return quote(Path(os.path.relpath(path, base)).as_posix())


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
        bars = [(title, cell) for (title, _), cell in zip(table.rows, cells) if cell.values]
        if bars:
            charts.append(figure(bar_chart(bars), str(column)))
    legend = "Blue: measured, the mean over the runs and their standard deviation. Grey: published elsewhere."
    figures = fill(_FIGURES, table=table, notes=notes, link=lambda path: relative(path, Path(base)))
    return html_page(table.name, [fill("<p>{{ legend }}</p>", legend=legend), *charts, figures])


def bar_chart(bars: Sequence[tuple[str, Cell]]) -> Image.Image:
    """A bar from 0 a row, (title, cell), with its standard deviation and its figure."""
    canvas = Figure(figsize=(9, 0.5 + 0.32 * len(bars)), layout="constrained", dpi=120)
    axes = canvas.subplots()
    cells = [cell for _, cell in bars]
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
    axes.set_yticks(range(len(bars)), [title for title, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    return draw(canvas)
