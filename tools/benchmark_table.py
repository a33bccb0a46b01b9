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
import sys
from pathlib import Path

from slotcon_plugin.arguments import add_cfg_options, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.errors import RunFailedError, UserError


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
    from slotcon_plugin.benchmark import load_plan, plan_steps
    from slotcon_plugin.benchmark.documents import fill_document
    from slotcon_plugin.benchmark.keep import keep_results
    from slotcon_plugin.benchmark.records import ran_otherwise
    from slotcon_plugin.benchmark.render import write_tables

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


if __name__ == "__main__":
    run_command(main)
