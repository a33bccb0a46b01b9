"""A table as one HTML page that needs nothing but itself: bars with error bars, then the figures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from slotcon_plugin.benchmark.tables import Cell, Column, Table
from slotcon_plugin.benchmark.text import relative

_STYLE = """
:root { --text: #222; --soft: #6b6b6b; --line: #ddd; --page: #fff; --measured: #2a6fb0; --published: #b9b9b9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --soft: #9a9a9a; --line: #3a3a3a; --page: #1b1b1b; --measured: #5a9fe0; --published: #5c5c5c; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 1100px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.05em; margin: 2em 0 .3em; }
svg { width: 100%; height: auto; font: 13px system-ui, sans-serif; } svg text { fill: var(--text); }
.track { fill: var(--line); opacity: .4; } .measured { fill: var(--measured); } .published { fill: var(--published); }
.error { stroke: var(--text); stroke-width: 1.5; fill: none; } svg .soft { fill: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; } a { color: var(--measured); }
th, td { border-bottom: 1px solid var(--line); padding: .4em .8em; text-align: left; vertical-align: top; }
td.missing, .note { color: var(--soft); font-size: .9em; } td.figure { font-variant-numeric: tabular-nums; }
"""
_WIDTH, _LABEL, _FIGURE, _ROW = 1000, 320, 150, 26  # pixels of a chart: all, row titles, figures; height of a row


def html_page(table: Table, base: str | Path, notes: Sequence[str] = ()) -> str:
    """The page; links to result files are relative to the folder ``base``, in which it is to lie."""
    charts = [_chart(column, table, index) for index, column in enumerate(table.columns)]
    problems = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in notes)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(table.name)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(table.name)}</h1>\n"
        '<p class="note">Blue bars are measured: mean over the runs, the line is their standard deviation. '
        "Grey bars are published elsewhere.</p>\n"
        + "".join(charts)
        + f"<h2>All figures</h2>\n{_figures(table, Path(base))}{problems}</body></html>\n"
    )


def _chart(column: Column, table: Table, index: int) -> str:
    """Bars of one column, from 0; nothing where no row has a figure."""
    rows = [(title, cells[index]) for title, cells in table.rows if cells[index].values]
    if not rows:
        return ""
    top = max(cell.mean + (cell.spread or 0) for _, cell in rows) or 1.0
    width = _WIDTH - _LABEL - _FIGURE
    parts = []
    for number, (title, cell) in enumerate(rows):
        y = number * _ROW
        length, middle = width * max(cell.mean, 0) / top, y + _ROW / 2
        spread = width * (cell.spread or 0) / top
        parts += [
            f'<text x="{_LABEL - 10}" y="{middle + 4:.1f}" text-anchor="end">{html.escape(title)}</text>',
            f'<rect class="track" x="{_LABEL}" y="{y + 5}" width="{width}" height="{_ROW - 10}"/>',
            f'<rect class="{cell.kind}" x="{_LABEL}" y="{y + 5}" width="{length:.1f}" height="{_ROW - 10}"/>',
        ]
        if cell.spread is not None:
            left, right = max(_LABEL + length - spread, _LABEL), _LABEL + length + spread
            parts.append(
                f'<path class="error" d="M{left:.1f} {middle}H{right:.1f}'
                f'M{left:.1f} {middle - 4}v8M{right:.1f} {middle - 4}v8"/>'
            )
        runs = f" ({len(cell.values)} runs)" if len(cell.values) > 1 else ""
        parts.append(
            f'<text x="{_LABEL + width + 10}" y="{middle + 4:.1f}">{cell.figure}'
            f'<tspan class="soft">{runs}</tspan></text>'
        )
    name = html.escape(f"{column.title}: {column.metric}")
    return (
        f'<h2>{name}</h2>\n<svg viewBox="0 0 {_WIDTH} {len(rows) * _ROW}" role="img" aria-label="{name}">'
        + "".join(parts)
        + "</svg>\n"
    )


def _figures(table: Table, base: Path) -> str:
    head = "".join(f"<th>{html.escape(f'{column.title}: {column.metric}')}</th>" for column in table.columns)
    body = "".join(
        f"<tr><th>{html.escape(title)}</th>{''.join(_cell(cell, base) for cell in cells)}</tr>\n"
        for title, cells in table.rows
    )
    return f'<div class="wide"><table><tr><th>pretraining</th>{head}</tr>\n{body}</table></div>\n'


def _cell(cell: Cell, base: Path) -> str:
    if cell.kind == "missing":
        return f'<td class="missing">{html.escape(cell.text)}</td>'
    if cell.kind == "published":
        return f'<td class="figure">{cell.figure} <span class="note">{html.escape(cell.text)}</span></td>'
    links = " ".join(
        f'<a href="{html.escape(relative(path, base))}" title="seed {seed}">{value:.1f}</a>'
        for value, (seed, path) in zip(cell.values, cell.sources)
    )
    if len(cell.values) == 1:
        return f'<td class="figure">{links}</td>'
    return f'<td class="figure">{cell.figure} <span class="note">{links}</span></td>'
