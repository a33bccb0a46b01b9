"""A table as Markdown and CSV, and Markdown tables between the markers of a document."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

from slotcon_plugin.benchmark.tables import UNKNOWN, Cell, Table

_MARKED = re.compile(r"(<!-- table:(?P<name>[\w-]+) begin -->\n)(?P<body>.*?)(<!-- table:(?P=name) end -->)", re.DOTALL)


def markdown(table: Table, base: str | Path) -> str:
    """Markdown whose measured figures link to their result files, relative to the folder ``base``.

    Sources of published figures and what missing ones need are footnotes, so that rows stay short.
    """
    sources, needs = Footnotes("S"), Footnotes("N")
    head = ["pretraining", *(f"{column.title}: {column.metric}" for column in table.columns)]
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
