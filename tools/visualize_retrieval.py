"""Draw points of one photo and the pixels of another that a pretrained model finds most alike.

    python tools/visualize_retrieval.py runs/vader a.jpg b.jpg --out match.png
    python tools/visualize_retrieval.py WORK_DIR a.jpg b.jpg --points 0.5,0.5 0.2,0.8 --out match.html

`slotcon look --kind retrieval` does the same. runs/vader is the work dir of a pretraining: its newest checkpoint is
taken. The points are in the first photo, the second is searched; the first one again shows repeated parts. The number
beside a match is its cosine similarity.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device, add_picture_out, add_trained_model, tool_parser
from slotcon_plugin.cli.settings import LOOKING, add_settings
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_trained_model(parser, "photos", "two photos: with the points, and to be searched", least=2, most=2)
    add_picture_out(parser, "retrieval.png")
    add_settings(parser, LOOKING, "retrieval")
    add_device(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import visualize_retrieval

    print(f"wrote {visualize_retrieval(**vars(args))}")


if __name__ == "__main__":
    run_command(main)
