"""Draw points of one photo and the pixels of another that a pretrained model finds most alike.

    python tools/visualize_retrieval.py runs/vader a.jpg b.jpg --out match.png
    python tools/visualize_retrieval.py WORK_DIR a.jpg b.jpg --points 0.5,0.5 0.2,0.8 --out match.html

runs/vader is the work dir of a pretraining: its newest checkpoint is taken. The points are in the first photo, the
second is searched; the first one again shows repeated parts. The number beside a match is its cosine similarity.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_branch, add_device, add_picture_out, add_trained_model, at_least, tool_parser
from slotcon_plugin.command import run_command


def parse_point(text: str) -> tuple[float, float]:
    """``0.5,0.25`` -> (0.5, 0.25)."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected x,y such as 0.5,0.25, got {text!r}") from None
    return x, y


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_trained_model(parser, "photos", "two photos: with the points, and to be searched", least=2, most=2)
    add_picture_out(parser, "retrieval.png")
    parser.add_argument(
        "--points",
        nargs="+",
        type=parse_point,
        metavar="X,Y",
        help="points of the first photo, as shares of its width and height (default: nine, spread over it)",
    )
    parser.add_argument(
        "--size", type=at_least(1), default=320, help="shorter side of what the model sees, in pixels (%(default)s)"
    )
    add_branch(parser)
    add_device(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import visualize_retrieval

    print(f"wrote {visualize_retrieval(**vars(args))}")


if __name__ == "__main__":
    run_command(main)
