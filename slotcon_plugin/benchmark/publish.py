"""A plan's table in all its forms, to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from slotcon_plugin.benchmark.page import html_page
from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.tables import PUBLISHED, build_table, collect
from slotcon_plugin.benchmark.text import csv_text, markdown
from slotcon_plugin.files import write_text


def write_tables(plan: Plan, folders: Iterable[str | Path], out: Path) -> list[Path]:
    """``table.md``, ``table.csv`` and ``table.html`` of a plan in a folder."""
    runs, problems = collect(folders)
    table = build_table(plan, runs, PUBLISHED if PUBLISHED.is_file() else None)
    notes = (*problems, *table.problems)
    texts = {
        "table.md": markdown(table, out) + "".join(f"\n{note}  " for note in notes) + ("\n" if notes else ""),
        "table.csv": csv_text(table, out),
        "table.html": html_page(table, out, notes),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]
