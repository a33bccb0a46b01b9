"""Make a plan's table from result files: Markdown, CSV, and an HTML page with bars and error bars.

    python tools/benchmark_table.py configs/benchmark/demo.py --results work_dirs/benchmark/demo --out work_dirs/tables
    python tools/benchmark_table.py configs/benchmark/demo.py --keep docs/results/demo   # copies of its result files
    python tools/benchmark_table.py --fill README.md docs/results.md            # the tables between their markers
    python tools/benchmark_table.py --fill README.md docs/results.md --check    # status 1 where they are not up to date

Between <!-- table:NAME begin --> and <!-- table:NAME end --> stand the tables of configs/benchmark/NAME.py, one a task,
from docs/results/NAME/**/*.json and docs/published.json; with NAME/TASK,TASK one small table of these tasks' first
metrics. Figures link to docs/results/NAME.md, a page of all runs, which is written with them.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from slotcon_plugin.arguments import add_cfg_options, tool_parser
from slotcon_plugin.benchmark import Plan, load_plan
from slotcon_plugin.benchmark.collect import ResultFile, collect
from slotcon_plugin.benchmark.records import ran_otherwise
from slotcon_plugin.benchmark.render import brief, markdown, runs_page, write_tables
from slotcon_plugin.benchmark.steps import plan_steps
from slotcon_plugin.benchmark.tables import build_table
from slotcon_plugin.command import run_command
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import write_json, write_text

_NAME = r"[\w/,-]+"
_MARKED = re.compile(
    rf"(<!-- table:(?P<name>{_NAME}) begin -->\n)(?P<body>.*?)(<!-- table:(?P=name) end -->)", re.DOTALL
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("plan", nargs="?", help="config file below configs/benchmark")
    parser.add_argument(
        "--results", nargs="+", metavar="DIR", help="where result files are (default: the plan's default work dir)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="gets table.md, .csv and .html (default: first DIR)")
    add_cfg_options(parser, "--set", "as of benchmark.py")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the result files there instead, to be kept")
    parser.add_argument(
        "--fill", nargs="+", type=Path, metavar="FILE", help="fill the tables of these Markdown files instead"
    )
    parser.add_argument("--check", action="store_true", help="with --fill: write nothing, only compare")
    args = parser.parse_args(argv)
    if (args.plan is None) == (args.fill is None):
        parser.error("expected either a plan or --fill FILE")
    if args.check and not args.fill:
        parser.error("--check goes with --fill")
    return args


def main() -> None:
    args = parse_args()
    for document in args.fill or ():
        same, problems = fill_document(document, write=not args.check)
        print("\n".join(problems), file=sys.stderr)
        if args.check and not same:
            raise RunFailedError(f"{document} is not what the result files give; leave out --check to write it")
        print(f"{document}: {'unchanged' if same else 'written'}")
    if args.fill:
        return
    plan = load_plan(args.plan, args.set)
    folders = args.results or [f"work_dirs/benchmark/{plan.name}"]
    if missing := [folder for folder in folders if not Path(folder).is_dir()]:
        raise UserError(f"--results: {missing[0]} is no folder")
    for folder in map(Path, folders):
        for line in ran_otherwise(plan_steps(plan, folder), folder):
            print(line, file=sys.stderr)
    if args.keep:
        written, problems = keep_results(plan, folders, args.keep)
        print("\n".join([*problems, *map(str, written)]))
        return
    for path in write_tables(plan, folders, args.out or Path(folders[0])):
        print(path)


def keep_results(plan: Plan, folders: Sequence[str | Path], out: Path) -> tuple[list[Path], list[str]]:
    """Copy the result files of a plan's runs to where they are kept, under the names that they have in their folders.

    Where a data set was moved, its path is replaced by the plan's own: a published command says what was run and not
    how this machine's folders are called.

    Returns:
        The copies, and a line for every file that was left because it is damaged or no step's.

    Raises:
        UserError: files of two folders would have one name.
    """
    usual = load_plan(plan.file).data
    places = sorted(((data.path, usual[name].path) for name, data in plan.data.items()), key=lambda p: -len(p[0]))

    def moved(text: str) -> str:
        for here, there in places:
            if text == here or text.startswith(f"{here}/"):
                return there + text.removeprefix(here)
        return text

    def command(text: str) -> str:
        pairs = [word.partition("=") for word in shlex.split(text)]
        return shlex.join(f"{key}={moved(value)}" if equals else moved(key) for key, equals, value in pairs)

    def portable(value: object, key: str | None = None) -> object:
        if isinstance(value, dict):
            return {name: portable(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [portable(inner) for inner in value]
        if not isinstance(value, str):
            return value
        return command(value) if key == "command" else moved(value)

    copies: dict[Path, ResultFile] = {}
    problems = []
    for folder in map(Path, folders):
        found, ignored = collect([folder])
        problems += ignored
        for file in found:
            copy = out / file.path.relative_to(folder)
            if copy in copies:
                raise UserError(f"--keep: {copies[copy].path} and {file.path} would both be {copy}: keep them apart")
            copies[copy] = file
    for copy, file in copies.items():
        write_json(copy, portable(file.result), indent=1)
    return list(copies), problems


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


if __name__ == "__main__":
    run_command(main)
