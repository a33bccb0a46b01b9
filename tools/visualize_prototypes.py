"""Show what prototypes have learned: for each, the segments of a set of photos that are nearest to it.

    python tools/visualize_prototypes.py runs/mine my_photos/ --out prototypes.png
    python tools/visualize_prototypes.py WORK_DIR my_photos/ --prototypes 3 17 42 --nearest 8 --out prototypes.html

`slotcon look --kind prototypes` does the same. runs/mine is the work dir of a pretraining: its newest checkpoint is
taken. Each row is a prototype: in how many of the photos it owns a segment, and its nearest segments with the cosine
similarity of slot and prototype. A good prototype shows one kind of thing.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device, add_picture_out, add_trained_model, tool_parser
from slotcon_plugin.cli.settings import LOOKING, add_settings
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_trained_model(parser, "photos", "photos to search, or folders of them")
    add_picture_out(parser, "prototypes.png")
    add_settings(parser, LOOKING, "prototypes")
    add_device(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import visualize_prototypes

    print(f"wrote {visualize_prototypes(**vars(args))}")


if __name__ == "__main__":
    run_command(main)
