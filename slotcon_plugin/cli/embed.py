"""Vectors of photos, of crops, or of every position of their feature maps.

    slotcon embed runs/a photos/ --out photos.npz
    slotcon embed runs/a photos/ --out crops.npz --level crop --grid 4 4
    slotcon embed runs/a photos/ --out objects.parquet --level crop --boxes annotations.json
    slotcon embed resnet50.pth photos/ --out pixels.npz --level pixel --limit 100

RUN is a work dir, or weights of any kind that `slotcon export` reads. docs/embed.md shows search and deduplication.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device, at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.embed`."""
    parser.add_argument("run_dir", metavar="RUN", help="work dir or checkpoint")
    parser.add_argument("photos", nargs="+", help="photos, or folders of them")
    parser.add_argument("--out", metavar="FILE", default="embeddings.npz", help=".npz or .parquet (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--level", choices=["photo", "crop", "pixel"], default="photo", help="(%(default)s)")
    crops = parser.add_mutually_exclusive_group()
    crops.add_argument("--grid", nargs=2, type=at_least(1), metavar=("ROWS", "COLUMNS"), help="crops of a photo (3 3)")
    crops.add_argument("--boxes", metavar="JSON", help="crops: boxes of a COCO annotation file; PHOTOS is its folder")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only N photos, spread evenly")
    parser.add_argument(
        "--short-side", type=at_least(1), default=224, help="of what the network sees, in pixels (%(default)s)"
    )
    parser.add_argument("--stages", nargs="+", type=int, default=[-1], help="stage maps put side by side (-1)")
    parser.add_argument("--batch-size", type=at_least(1), default=16, help="photos of one shape at once (%(default)s)")
    parser.add_argument("--config", help="of a single checkpoint's run; a work dir brings it")
    parser.add_argument("--network", metavar="NAME", help="timm's name of the network in a file of somebody else's")
    parser.add_argument("--branch", choices=["teacher", "student"], help="(default: what the method transfers)")
    parser.add_argument(
        "--decoder", action="store_true", help="append the decoder's map (VADeR, SlotCon's); --stages -1 takes it"
    )
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Embed."""
    from slotcon_plugin.actions.embedding import embed

    names = ("overwrite", "limit", "short_side", "stages", "batch_size", "config", "network", "branch", "decoder")
    options = {name: getattr(args, name) for name in (*names, "device", "boxes")}
    options["grid"] = args.grid and tuple(args.grid)
    photos = args.photos[0] if len(args.photos) == 1 else args.photos
    made = embed(args.run_dir, photos, args.out, args.level, **options)
    print(f"{args.out}: {made}")
