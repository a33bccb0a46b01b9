#!/usr/bin/env python
"""Unsupervised segmentation: match the prototypes of a pretraining to the classes of a labelled set.

    python tools/eval_unsupervised_seg.py work_dirs/run --data data/demo
    python tools/eval_unsupervised_seg.py WORK_DIR --random-init --data data/demo      # what an untrained model gets
    python tools/eval_unsupervised_seg.py WORK_DIR --data data/coco --protocol picie --out result.json

`slotcon evaluate --measure prototypes` does the same beside the untrained model. Every pixel goes to the prototype with
the largest assignment of the teacher; three figures come out of one pass.
"""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.arguments import add_device, add_labelled_set, tool_parser
from slotcon_plugin.cli.settings import EVALUATING, add_settings, settings_of
from slotcon_plugin.command import run_command


def main() -> None:
    """Parse the command line, evaluate, print and write."""
    from slotcon_plugin.evaluation import open_labelled_set
    from slotcon_plugin.evaluation.run import evaluate_unsupervised
    from slotcon_plugin.evaluation.unsupervised import PROTOCOLS

    parser = tool_parser(__doc__, "figures:\n" + "\n".join(f"  {name:10} {text}" for name, text in PROTOCOLS.items()))
    parser.add_argument("config", help="work dir of a pretraining, or its config")
    parser.add_argument("checkpoint", nargs="?", help="its checkpoint (default: the newest whole one of the work dir)")
    parser.add_argument("--random-init", action="store_true", help="no checkpoint: the untrained model of the config")
    parser.add_argument("--data", required=True, metavar="DIR", help="labelled set; docs/evaluate.md lists the layouts")
    parser.add_argument("--split", default="val", help="(%(default)s)")
    add_labelled_set(parser)
    add_settings(parser, EVALUATING, "prototypes")
    add_device(parser)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write a result file")
    args = parser.parse_args()
    checkpoint = args.checkpoint or (args.config if Path(args.config).is_dir() and not args.random_init else None)
    if (checkpoint is None) != args.random_init:
        parser.error("expected either a checkpoint or --random-init")
    data = open_labelled_set(args.data, args.split, args.layout, args.protocol).subset(args.limit)
    print(f"{data.name}: {len(data)} photos")
    result = evaluate_unsupervised(
        *(args.config, checkpoint, data),
        pretraining=args.pretraining,
        result_file=args.out,
        device=args.device,
        **settings_of(args, EVALUATING),
    )
    print(result)


if __name__ == "__main__":
    run_command(main)
