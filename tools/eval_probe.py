#!/usr/bin/env python
"""Linear and k-NN segmentation on the frozen features of a checkpoint, beside those of a random backbone."""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.arguments import add_device, at_least, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.evaluation import READERS, open_labelled_set
from slotcon_plugin.evaluation.run import probe_checkpoint

EPILOG = """
Figures are mean intersection over union and pixel accuracy in percent, at the size of the masks. Only figures of the
same settings and the same data compare; the random arms are run with them each time.

examples:
  python tools/eval_probe.py work_dirs/run --data data/demo --test val
  python tools/eval_probe.py moco_v2_200ep_pretrain.pth.tar --data data/camvid --test test --bn-calibrate data/photos
  python tools/eval_probe.py work_dirs/vader_demo --decoder --stages -1 --data data/camvid
  python tools/eval_probe.py CKPT --config work_dirs/run/my_timm_config.py --data data/camvid --out work_dirs/probe
"""


def main() -> None:
    """Parse the command line, probe all arms, print and write."""
    parser = tool_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", help="any checkpoint that this project reads, or a run's work dir")
    parser.add_argument("--config", help="config that trained it; a work dir has it, and plain ResNets need none")
    parser.add_argument("--network", metavar="NAME", help="timm's name of the network in a file of somebody else's")
    parser.add_argument("--which", choices=["teacher", "student"], help="default: the branch that the method transfers")
    parser.add_argument(
        "--decoder",
        action="store_true",
        help="append the decoder's map (VADeR, SlotCon's; work dir or --config): probe it with --stages -1",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="labelled set; see eval_unsupervised_seg.py --help"
    )
    parser.add_argument("--layout", default="auto", choices=["auto", *READERS])
    parser.add_argument("--train", default="train", help="split on which the heads are trained")
    parser.add_argument("--test", default="val", help="split on which they are scored")
    parser.add_argument("--limit", type=at_least(1), help="use only so many photos of each split, spread evenly")
    parser.add_argument("--input-size", nargs=2, type=at_least(1), default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--output-stride",
        type=int,
        choices=[8, 16, 32],
        help="of the last stage, which is dilated below 32: give the stride that the checkpoint was pretrained at "
        "(default: the network's own; with --config or a work dir the config's)",
    )
    parser.add_argument("--stages", nargs="+", type=int, default=(-2, -1), help="stage maps put side by side")
    parser.add_argument("--epochs", type=at_least(1), default=15)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=at_least(1), default=16)
    parser.add_argument(
        "--seeds", nargs="+", type=at_least(0), default=(0, 1), help="one linear head each (default 0 1)"
    )
    parser.add_argument("--neighbours", type=at_least(0), default=20, help="k of the k-NN probe; 0 leaves it out")
    parser.add_argument(
        "--bn-calibrate", metavar="DIR", help="one more random arm: BN statistics set on photos of this folder"
    )
    parser.add_argument("--bn-photos", type=at_least(1), default=480, help="how many of them (default 480)")
    parser.add_argument("--random-seed", type=int, default=0, help="of the random backbones")
    parser.add_argument(
        "--name",
        help="the checkpoint's row in tables (default: pretrained, or what a run from weights says of itself)",
    )
    add_device(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write a result file for each arm and probe")
    args = parser.parse_args()
    train, test = (
        open_labelled_set(args.data, split, args.layout).subset(args.limit) for split in (args.train, args.test)
    )
    results = probe_checkpoint(
        args.checkpoint,
        train,
        test,
        config=args.config,
        name=args.name,
        which=args.which,
        decoder=args.decoder,
        network=args.network,
        output_stride=args.output_stride,
        random_seed=args.random_seed,
        bn_calibrate=args.bn_calibrate,
        bn_photos=args.bn_photos,
        out_dir=args.out,
        input_size=tuple(args.input_size),
        stages=tuple(args.stages),
        epochs=args.epochs,
        learning_rate=args.lr,
        batch_size=args.batch_size,
        seeds=tuple(args.seeds),
        neighbours=args.neighbours,
        device=args.device,
    )
    print(f"{train.name} ({len(train)} photos) -> {test.name} ({len(test)} photos)")
    for arm, probes in results.items():
        for probe, result in probes.items():
            print(f"  {arm:10} {probe:6} {result}")


if __name__ == "__main__":
    run_command(main)
