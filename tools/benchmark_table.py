"""Make a plan's table from result files: Markdown, CSV, and an HTML page with bars and error bars.

    python tools/benchmark_table.py configs/benchmark/demo.py --results work_dirs/benchmark/demo --out work_dirs/tables
    python tools/benchmark_table.py configs/benchmark/demo.py --keep docs/results/demo   # copies of its result files
    python tools/benchmark_table.py --readme README.md             # the tables between its markers, from docs/results
    python tools/benchmark_table.py --readme README.md --check     # status 1 when they are not what the files give

Between <!-- table:NAME begin --> and <!-- table:NAME end --> stands the table of configs/benchmark/NAME.py, from
docs/results/NAME/**/*.json and docs/published.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", nargs="?", help="config file below configs/benchmark")
    parser.add_argument(
        "--results", nargs="+", metavar="DIR", help="where result files are (default: the plan's default work dir)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="gets table.md, .csv and .html (default: first DIR)")
    parser.add_argument(
        "--set", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="as of benchmark.py"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the result files there instead, to be kept")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="fill the tables of this Markdown file instead")
    parser.add_argument("--check", action="store_true", help="with --readme: write nothing, only compare")
    args = parser.parse_args(argv)
    if (args.plan is None) == (args.readme is None):
        parser.error("expected either a plan or --readme FILE")
    if args.check and not args.readme:
        parser.error("--check goes with --readme")
    return args


def main() -> None:
    args = parse_args()
    from slotcon_plugin.benchmark import load_plan
    from slotcon_plugin.benchmark.publish import write_tables
    from slotcon_plugin.benchmark.readme import fill_readme, keep_results

    try:
        if args.readme:
            same, problems = fill_readme(args.readme, write=not args.check)
            print("\n".join(problems), file=sys.stderr)
            if args.check and not same:
                sys.exit(f"{args.readme} differs from what the result files give; without --check this writes it")
            print(f"{args.readme}: {'unchanged' if same else 'written'}")
            return
        plan = load_plan(args.plan, args.set)
        folders = args.results or [f"work_dirs/benchmark/{plan.name}"]
        if missing := [folder for folder in folders if not Path(folder).is_dir()]:
            raise ValueError(f"--results: {missing[0]} is no folder")
        if args.keep:
            written, problems = keep_results(plan, folders, args.keep)
            print("\n".join([*problems, *map(str, written)]))
            return
        for path in write_tables(plan, folders, args.out or Path(folders[0])):
            print(path)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
