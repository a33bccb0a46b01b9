"""Show how a pretrained model divides photos: each photo beside its segments, coloured and numbered by prototype.

    python tools/visualize_groups.py runs/mine a.jpg b.jpg --out groups.png
    python tools/visualize_groups.py WORK_DIR my_photos/ --limit 24 --out groups.html

`slotcon look` does the same. runs/mine is the work dir of a pretraining: its newest checkpoint is taken. A prototype
has the same colour and number in every picture. --out *.png writes one contact sheet, --out *.html one page.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device, add_picture_out, add_trained_model, tool_parser
from slotcon_plugin.cli.settings import LOOKING, add_settings
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_trained_model(parser, "photos", "photos, or folders of them")
    add_picture_out(parser, "groups.png")
    add_settings(parser, LOOKING, "groups")
    add_device(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import visualize_groups

    print(f"wrote {visualize_groups(**vars(args))}")


if __name__ == "__main__":
    run_command(main)
