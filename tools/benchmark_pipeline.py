"""Measure the input pipeline on a folder of photos.

Prints how many images one core turns into two views a second, the share of each stage, and the same for the plain
pipeline of the papers' code (full decode, bicubic crops, colour and blur with Pillow), run in turn on the same photos.

Examples:
    python tools/benchmark_pipeline.py path/to/photos
    python tools/benchmark_pipeline.py path/to/photos --resize-to 640x480 --photos 128 --rounds 9
    python tools/benchmark_pipeline.py path/to/photos --view-size 112 --device cuda
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path

import PIL
import simplejpeg
import torch

from slotcon_plugin.arguments import add_device, at_least, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.data import ImageFolder, TwoViewDataset
from slotcon_plugin.profiling.pipeline import profile_pipeline, write_resized


def parse_size(text: str) -> tuple[int, int]:
    """``640x480`` -> (640, 480)."""
    width, x, height = text.lower().partition("x")
    if not (width.isdigit() and x and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(width), int(height)


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("path", type=Path, help="folder of photos, flat or nested")
    parser.add_argument("--view-size", type=int, default=224, help="side of the views in pixels (default 224)")
    parser.add_argument("--photos", type=at_least(1), default=256, help="how many photos a round (default 256)")
    parser.add_argument("--rounds", type=at_least(1), default=7, help="rounds of both arms in turn (default 7)")
    parser.add_argument("--batch-size", type=int, default=32, help="images a batch (default 32)")
    add_device(parser, "where colour is augmented: ")
    parser.add_argument(
        "--resize-to",
        metavar="WxH",
        type=parse_size,
        help="first write resized JPEG copies to a temporary folder and measure on them, e.g. 640x480",
    )
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of these copies (default 90)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    source = ImageFolder(args.path)
    with tempfile.TemporaryDirectory() as folder:
        if args.resize_to:
            paths = [source.path(index) for index in range(min(args.photos, len(source)))]
            write_resized(paths, Path(folder), args.resize_to, args.quality)
            source = ImageFolder(folder)
        count = min(args.photos, len(source))
        size = sum(os.path.getsize(source.path(index)) for index in range(count)) / count / 1024
        print(
            f"{count} photos of {size:.0f} KiB on average, views of {args.view_size}, {args.rounds} rounds, "
            f"one thread; torch {torch.__version__}, Pillow {PIL.__version__}, simplejpeg {simplejpeg.__version__}, "
            f"Python {platform.python_version()}\nmedian [lowest..highest] of the rounds\n"
        )
        dataset = TwoViewDataset(source, view_size=args.view_size)
        timings = profile_pipeline(dataset, args.rounds, args.batch_size, args.photos, args.device)
    print(timings.report())


if __name__ == "__main__":
    run_command(main)
