"""Tables in documents, between markers that name them, and the pages of runs that they link to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from slotcon_plugin.benchmark.collect import collect
from slotcon_plugin.benchmark.plan import load_plan
from slotcon_plugin.benchmark.render import brief, markdown, runs_page
from slotcon_plugin.benchmark.tables import build_table
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text

_NAME = r"[\w/,-]+"
_MARKED = re.compile(
    rf"(<!-- table:(?P<name>{_NAME}) begin -->\n)(?P<body>.*?)(<!-- table:(?P=name) end -->)", re.DOTALL
)


def fill_document(document: Path, root: Path = Path(), write: bool = True) -> tuple[bool, list[str]]:
    """Fill the tables between a document's markers, and write the pages of runs that they link to.

    Args:
        document: Markdown file; links are relative to its folder.
        root: checkout with ``configs/benchmark``, ``docs/results`` and ``docs/published.json``.
        write: False only compares.

    Returns:
        Whether document and pages were what the files give, and a line for every file that was ignored.

    Raises:
        UserError: no such plan or task, half a marker, or results that cannot share a cell.
    """
    problems: list[str] = []
    texts: dict[Path, str] = {}

    def table_of(name: str) -> str:
        name, _, tasks = name.partition("/")
        plan = load_plan(root / "configs/benchmark" / f"{name}.py")
        runs, ignored = collect([root / "docs/results" / name])
        table = build_table(plan, runs, root / "docs/published.json")
        problems.extend((*ignored, *table.problems))
        page = root / "docs/results" / f"{name}.md"
        if runs:
            texts[page] = runs_page(table, page.parent)
        if tasks:
            return brief(table, document.parent, page, tasks.split(","))
        return markdown(table, document.parent, page)

    texts[document] = fill_markers(document.read_text(encoding="utf-8"), table_of)
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale if write else ():
        write_text(path, texts[path])
    return not stale, problems


def fill_markers(document: str, make: Callable[[str], str]) -> str:
    """A document with ``make(NAME)`` between each ``<!-- table:NAME begin -->`` and ``<!-- table:NAME end -->``.

    Raises:
        UserError: a marker without its other half.
    """
    filled = _MARKED.sub(lambda match: f"{match[1]}\n{make(match['name'])}\n{match[4]}", document)
    left = re.findall(rf"<!-- table:{_NAME} (?:begin|end) -->", _MARKED.sub("", document))
    if left:
        raise UserError(f"a table's marker without its other half: {', '.join(left)}")
    return filled
