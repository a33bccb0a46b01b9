"""Tables of a document, generated from the result files that the repository keeps."""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.benchmark.plan import load_plan
from slotcon_plugin.benchmark.tables import build_table, collect
from slotcon_plugin.benchmark.text import fill_markers, markdown


def fill_readme(document: Path, root: Path | None = None, write: bool = True) -> tuple[bool, list[str]]:
    """Fill the tables between a document's markers.

    Args:
        document: Markdown file; links are relative to its folder.
        root: checkout with ``configs/benchmark``, ``docs/results`` and ``docs/published.json``; None = current folder.
        write: False only compares.

    Returns:
        Whether the document is what the files give, and a line for every file that was ignored.

    Raises:
        ValueError: no such plan, half a marker, or results that cannot share a cell.
    """
    root = Path() if root is None else root
    problems: list[str] = []

    def table_of(name: str) -> str:
        plan = load_plan(root / "configs/benchmark" / f"{name}.py")
        runs, ignored = collect([root / "docs/results" / name])
        table = build_table(plan, runs, root / "docs/published.json")
        problems.extend((*ignored, *table.problems))
        return markdown(table, document.parent)

    before = document.read_text(encoding="utf-8")
    after = fill_markers(before, table_of)
    if write and after != before:
        temporary = document.with_name(f".{document.name}.tmp")
        temporary.write_text(after, encoding="utf-8")
        temporary.replace(document)
    return after == before, problems
