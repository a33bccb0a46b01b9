"""Plot the curves of one or several pretrainings: losses, live prototypes, teacher entropy, learning rate, ...

    python tools/plot_run.py work_dirs/slotcon_demo
    python tools/plot_run.py runs/a runs/b --names "batch 64" "batch 8" --x epoch --out compare.html
    python tools/plot_run.py runs/a --figures loss live_prototypes teacher_entropy

`slotcon look RUN RUN --kind curves` does the same. Reads health.jsonl (SlotHealthHook) and mmengine's
vis_data/scalars.json of each work dir, of running ones as well. What the curves of a healthy run look like:
docs/healthy_run.md.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_picture_out, tool_parser
from slotcon_plugin.cli.settings import LOOKING, add_settings
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="+", help="work dirs")
    add_picture_out(parser, "curves.png")
    add_settings(parser, LOOKING, "curves")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import plot_run

    print(f"wrote {plot_run(**vars(args))}")


if __name__ == "__main__":
    run_command(main)
