"""Run a whole benchmark: pretrain, convert, transfer, table. What is done stays done; after a stop just start again.

    python tools/benchmark.py configs/benchmark/demo.py
    python tools/benchmark.py configs/benchmark/small_real.py --dry-run \\
        --set photos=my_photos/ masks=/data/camvid
    python tools/benchmark.py configs/benchmark/coco_main.py --gpus 8 --set coco=/data/coco
    python tools/benchmark.py configs/benchmark/coco_main.py --print-commands
    python tools/benchmark.py configs/benchmark/coco_main.py --gpus 8 --slurm run.sh && bash run.sh --partition gpu

Run it from the checkout's root. Leaves table.md, table.csv and table.html in the work dir. docs/benchmark_plans.md
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import tool_parser
from slotcon_plugin.cli.benchmark import add_arguments, run
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(lambda: run(parse_args()))
