"""Show how a pretrained model divides photos: each photo beside its segments, coloured and numbered by prototype.

    python tools/visualize_groups.py runs/mine/slotcon_coco_1gpu.py runs/mine/epoch_100.pth a.jpg b.jpg --out groups.png
    python tools/visualize_groups.py CONFIG CKPT my_photos/ --limit 24 --out groups.html

CONFIG is the config of the pretraining (its copy in the work dir will do), CKPT a checkpoint of it. A prototype has the
same colour and number in every picture. --out *.png writes one contact sheet, --out *.html one self-contained page.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the pretraining")
    parser.add_argument("checkpoint", help="checkpoint of that pretraining")
    parser.add_argument("photos", nargs="+", help="photos, or folders of them")
    parser.add_argument("--out", default="groups.png", help="picture (.png) or page (.html) to write (%(default)s)")
    parser.add_argument("--limit", type=int, default=16, help="photos to take at most, evenly spaced (%(default)s)")
    parser.add_argument(
        "--size",
        type=int,
        default=320,
        help="shorter side of what the model sees, in pixels; larger gives finer segments (%(default)s)",
    )
    parser.add_argument("--branch", choices=["teacher", "student"], default="teacher", help="(%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.visualization.run import visualize_groups

    try:
        print(f"wrote {visualize_groups(**vars(args))}")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
