"""A table as Markdown and CSV, and Markdown tables between the markers of a document."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

from slotcon_plugin.benchmark.tables import Cell, Table

_MARKED = re.compile(r"(<!-- table:(?P<name>[\w-]+) begin -->\n)(?P<body>.*?)(<!-- table:(?P=name) end -->)", re.DOTALL)


def markdown(table: Table, base: str | Path) -> str:
    """Markdown whose measured figures link to their result files, relative to the folder ``base``."""
    sources: list[str] = []
    head = ["pretraining", *(f"{column.title}: {column.metric}" for column in table.columns)]
    lines = [_line(head), _line(["---"] * len(head))]
    for title, cells in table.rows:
        lines.append(_line([title, *(_cell(cell, Path(base), sources) for cell in cells)]))
    text = "\n".join(lines) + "\n"
    if any(len(cell.values) > 1 for _, cells in table.rows for cell in cells):
        text += "\nMean ± standard deviation over the runs; the numbers in brackets link to each run's result file.\n"
    if sources:
        listed = "; ".join(f"[{index}] {source}" for index, source in enumerate(sources, 1))
        text += f"\nPublished figures: {listed}.\n"
    return text


def _line(parts: list[str]) -> str:
    return "| " + " | ".join(part.replace("|", "\\|") for part in parts) + " |"


def _cell(cell: Cell, base: Path, sources: list[str]) -> str:
    if cell.kind == "missing":
        return f"*{cell.text}*"
    if cell.kind == "published":
        if cell.text not in sources:
            sources.append(cell.text)
        return f"{cell.figure} (published [{sources.index(cell.text) + 1}])"
    links = [f"[{number}]({relative(path, base)})" for number, (_, path) in enumerate(cell.sources, 1)]
    if len(links) == 1:
        return f"[{cell.figure}]({relative(cell.sources[0][1], base)})"
    return f"{cell.figure} ({' '.join(links)})"


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


def fill_markers(document: str, make: Callable[[str], str]) -> str:
    """A document with ``make(NAME)`` between each ``<!-- table:NAME begin -->`` and ``<!-- table:NAME end -->``.

    Raises:
        ValueError: a marker without its other half.
    """
    filled = _MARKED.sub(lambda match: f"{match[1]}\n{make(match['name'])}\n{match[4]}", document)
    left = re.findall(r"<!-- table:[\w-]+ (?:begin|end) -->", _MARKED.sub("", document))
    if left:
        raise ValueError(f"a table's marker without its other half: {', '.join(left)}")
    return filled
