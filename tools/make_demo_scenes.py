#!/usr/bin/env python
"""Make demo scenes: pictures with exact ground truth, in the folder layout of a real dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from slotcon_plugin.arguments import tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.demo_scenes import CLASSES, WRITERS, contact_sheet, make_demo_scenes

EPILOG = f"""
Eleven classes: {", ".join(CLASSES)}. Textures and shapes tell them apart, colours do not. The same options
always give the same files; a folder that is already there with the same options is kept.

layouts (OUT is the dataset's root, the ids are ones that the frameworks' own dataset classes accept):
  plain       images/SPLIT, annotations/SPLIT (index masks), instances/SPLIT, classes.txt
  coco        train2017, val2017, annotations/instances_*.json, stuffthingmaps (COCO-Stuff ids)
  cityscapes  leftImg8bit, gtFine with labelIds, labelTrainIds, instanceIds and polygons
  ade20k      ADEChallengeData2016: images/training, annotations/training, ... (0 = ignore)
  voc         VOC2012: JPEGImages, SegmentationClass, SegmentationClassAug, ImageSets/Segmentation
  camvid      images/{{train,val,test}}, annotations/{{train,val,test}}, classes.txt

examples:
  python tools/make_demo_scenes.py data/demo
  python tools/make_demo_scenes.py data/demo_coco --layout coco --splits train=400 val=100
  python tools/make_demo_scenes.py data/demo --num-images 50 --sheet demo.png
"""


def parse_split(text: str) -> tuple[str, int]:
    """`train=80` -> ('train', 80)."""
    name, _, count = text.partition("=")
    if not count.isdigit():
        raise argparse.ArgumentTypeError(f"expected NAME=COUNT such as train=80, got {text!r}")
    return name, int(count)


def main() -> None:
    """Parse the command line and make the folder."""
    parser = tool_parser(__doc__, EPILOG)
    parser.add_argument("out", metavar="OUT", help="folder to make; must not hold anything else")
    parser.add_argument("--layout", choices=sorted(WRITERS), default="plain")
    parser.add_argument("--num-images", type=int, default=250, help="scenes in all, a fifth of them val (default 250)")
    parser.add_argument("--splits", nargs="+", type=parse_split, metavar="NAME=COUNT", help="instead of --num-images")
    parser.add_argument("--size", nargs=2, type=int, default=(320, 240), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", metavar="PNG", help="also write a contact sheet with the ground truth in colour")
    args = parser.parse_args()
    number = dict(args.splits) if args.splits else args.num_images
    out = make_demo_scenes(args.out, number, tuple(args.size), args.seed, args.layout)
    print(f"{out}: {args.layout} layout, {sum(1 for path in Path(out).rglob('*') if path.is_file())} files")
    if args.sheet:
        cv2.imwrite(args.sheet, contact_sheet(args.seed, size=tuple(args.size))[..., ::-1])
        print(f"{args.sheet}: contact sheet")


if __name__ == "__main__":
    run_command(main)
