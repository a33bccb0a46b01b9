"""Tables of a document, generated from the result files that the repository keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from slotcon_plugin.benchmark.plan import Plan, load_plan
from slotcon_plugin.benchmark.tables import build_table, collect
from slotcon_plugin.benchmark.text import fill_markers, markdown


def keep_results(plan: Plan, folders: Sequence[str | Path], out: Path) -> tuple[list[Path], list[str]]:
    """Copy the result files of a plan's runs to where they are kept, under the names that they have in their folders.

    Where a data set was moved, its path is replaced by the plan's own: a published command says what was run and not
    how this machine's folders are called.

    Returns:
        The copies, and a line for every file that was left because it is damaged or no step's.
    """
    places = {data.path: load_plan(plan.file).data[name].path for name, data in plan.data.items()}
    written, problems = [], []
    for folder in map(Path, folders):
        runs, ignored = collect([folder])
        problems += ignored
        for run in runs:
            text = json.dumps(run.result, indent=1)
            for here, usual in sorted(places.items(), key=lambda pair: -len(pair[0])):
                text = text.replace(here, usual)
            copy = out / run.path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text + "\n", encoding="utf-8")
            written.append(copy)
    return written, problems


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
