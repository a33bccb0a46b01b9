"""Show what prototypes have learned: for each, the segments of a set of photos that are nearest to it.

    python tools/visualize_prototypes.py CONFIG CKPT my_photos/ --out prototypes.png
    python tools/visualize_prototypes.py CONFIG CKPT my_photos/ --prototypes 3 17 42 --nearest 8 --out prototypes.html

Without --prototypes the most used ones are shown. Each row is a prototype: in how many of the photos it owns a segment,
and its nearest segments with the cosine similarity of slot and prototype. A good prototype shows one kind of thing.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the pretraining")
    parser.add_argument("checkpoint", help="checkpoint of that pretraining")
    parser.add_argument("photos", nargs="+", help="photos, or folders of them, to search")
    parser.add_argument("--out", default="prototypes.png", help="picture (.png) or page (.html) to write (%(default)s)")
    parser.add_argument("--limit", type=int, default=1000, help="photos to search at most, evenly spaced (%(default)s)")
    parser.add_argument("--prototypes", type=int, nargs="+", metavar="K", help="numbers of the prototypes to show")
    parser.add_argument(
        "--most-used", type=int, default=12, metavar="N", help="how many to show otherwise (%(default)s)"
    )
    parser.add_argument("--nearest", type=int, default=7, metavar="N", help="segments a prototype (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="shorter side of what the model sees (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import visualize_prototypes

    try:
        print(f"wrote {visualize_prototypes(**vars(args))}")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
