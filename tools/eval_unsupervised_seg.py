#!/usr/bin/env python
"""Unsupervised segmentation: match the prototypes of a pretraining to the classes of a labelled set."""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.arguments import add_branch, add_device, add_head, at_least, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.evaluation import READERS, open_labelled_set
from slotcon_plugin.evaluation.run import evaluate_unsupervised
from slotcon_plugin.evaluation.unsupervised import PROTOCOLS

EPILOG = (
    """
Every pixel goes to the prototype with the largest assignment of the teacher. Three figures come out of one pass:
"""
    + "\n".join(f"  {name:10} {meaning}" for name, meaning in PROTOCOLS.items())
    + """

DIR is recognised by its folders:
  folder      images/SPLIT, annotations/SPLIT (index masks .png), optional classes.txt; 255 is ignored
  cocostuff   images/val2017 or val2017, annotations/val2017 or stuffthingmaps/val2017; 27 coarse classes
  voc, cityscapes, ade20k   as the frameworks expect them

examples:
  python tools/eval_unsupervised_seg.py work_dirs/run --data data/demo
  python tools/eval_unsupervised_seg.py WORK_DIR --random-init --data data/demo      (what an untrained model gets)
  python tools/eval_unsupervised_seg.py WORK_DIR --data data/coco --protocol picie --out result.json
"""
)


def main() -> None:
    """Parse the command line, evaluate, print and write."""
    parser = tool_parser(__doc__, EPILOG)
    parser.add_argument("config", help="work dir of a pretraining, or its config")
    parser.add_argument("checkpoint", nargs="?", help="its checkpoint (default: the newest whole one of the work dir)")
    parser.add_argument("--random-init", action="store_true", help="no checkpoint: the untrained model of the config")
    parser.add_argument("--data", required=True, metavar="DIR", help="root folder of the labelled set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--layout", default="auto", choices=["auto", *READERS])
    parser.add_argument("--protocol", choices=["picie"], help="COCO-Stuff-27: 320 short side, centre crop")
    add_branch(parser)
    add_head(parser)
    parser.add_argument("--short-side", type=at_least(1), default=320, help="of the photos in pixels (default 320)")
    parser.add_argument("--limit", type=at_least(1), help="use only so many photos, spread evenly over the split")
    parser.add_argument("--batch-size", type=at_least(1), default=8)
    parser.add_argument("--seed", type=int, default=0, help="of k-means, and of the model with --random-init")
    parser.add_argument("--name", help="the checkpoint's row in tables (default: the method)")
    add_device(parser)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write a result file")
    args = parser.parse_args()
    checkpoint = args.checkpoint or (args.config if Path(args.config).is_dir() and not args.random_init else None)
    if (checkpoint is None) != args.random_init:
        parser.error("expected either a checkpoint or --random-init")
    data = open_labelled_set(args.data, args.split, args.layout, args.protocol).subset(args.limit)
    print(f"{data.name}: {len(data)} photos")
    result = evaluate_unsupervised(
        args.config,
        checkpoint,
        data,
        short_side=args.short_side,
        batch_size=args.batch_size,
        branch=args.branch,
        head=args.head,
        seed=args.seed,
        device=args.device,
        result_file=args.out,
        pretraining=args.name,
    )
    print(result)


if __name__ == "__main__":
    run_command(main)
