#!/usr/bin/env python
"""Linear and k-NN segmentation on the frozen features of a checkpoint, beside those of a random backbone.

    python tools/eval_probe.py work_dirs/run --data data/demo --test val
    python tools/eval_probe.py moco_v2_200ep_pretrain.pth.tar --data data/camvid --test test --bn-calibrate data/photos
    python tools/eval_probe.py work_dirs/vader_demo --decoder --stages -1 --data data/camvid
    python tools/eval_probe.py CKPT --config work_dirs/run/my_timm_config.py --data data/camvid --out work_dirs/probe

`slotcon evaluate` does the same and prints a table. Figures are mean intersection over union and pixel accuracy in
percent, at the size of the masks. Only figures of the same settings and the same data compare; the random arms are run
with them each time.
"""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.arguments import add_device, add_labelled_set, tool_parser
from slotcon_plugin.cli.settings import EVALUATING, add_settings, settings_of
from slotcon_plugin.command import run_command


def main() -> None:
    """Parse the command line, probe all arms, print and write."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="any checkpoint that this project reads, or a run's work dir")
    parser.add_argument("--config", help="config that trained it; a work dir has it, and plain ResNets need none")
    parser.add_argument("--data", required=True, metavar="DIR", help="labelled set; docs/evaluate.md lists the layouts")
    parser.add_argument("--train", default="train", help="split on which the heads are trained (%(default)s)")
    parser.add_argument("--test", default="val", help="split on which they are scored (%(default)s)")
    add_labelled_set(parser)
    add_settings(parser, EVALUATING, "probe")
    add_device(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write a result file for each arm and probe")
    args = parser.parse_args()
    from slotcon_plugin.evaluation import open_labelled_set
    from slotcon_plugin.evaluation.run import probe_checkpoint

    train, test = (
        open_labelled_set(args.data, split, args.layout, args.protocol).subset(args.limit)
        for split in (args.train, args.test)
    )
    results = probe_checkpoint(
        *(args.checkpoint, train, test),
        config=args.config,
        pretraining=args.pretraining,
        out_dir=args.out,
        device=args.device,
        **settings_of(args, EVALUATING),
    )
    print(f"{train.name} ({len(train)} photos) -> {test.name} ({len(test)} photos)")
    for arm, probes in results.items():
        for probe, result in probes.items():
            print(f"  {arm:10} {probe:6} {result}")


if __name__ == "__main__":
    run_command(main)
