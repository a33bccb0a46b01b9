"""Judge a pretraining without fine-tuning, beside what random weights give.

    slotcon evaluate runs/a labelled/
    slotcon evaluate runs/a labelled/ --measure prototypes
    slotcon evaluate runs/b held_out_photos/ --measure retrieval
    slotcon evaluate moco_v2_200ep_pretrain.pth.tar /data/camvid --test test --out work_dirs/probe

LABELLED holds images/train, images/val and masks of class indices in annotations/; or is a data set in a layout that
docs/evaluate.md lists. tools/eval_probe.py, tools/eval_unsupervised_seg.py and tools/eval_pixel_retrieval.py have more
settings.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device, at_least

_OF_PROBES = ("stages", "epochs", "seeds", "input_size", "neighbours", "network", "which", "decoder", "output_stride")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.evaluate`."""
    from slotcon_plugin.actions.evaluating import MEASURES
    from slotcon_plugin.evaluation import READERS

    parser.epilog = "measures:\n" + "\n".join(f"  {name:11} {what}" for name, what in MEASURES.items())
    parser.add_argument("run_dir", metavar="RUN", help="work dir or checkpoint; to be probed, one of any known kind")
    parser.add_argument("data", help="labelled set; for --measure retrieval a folder of photos")
    parser.add_argument("--measure", choices=list(MEASURES), default="probe", help="(%(default)s)")
    parser.add_argument("--out", metavar="DIR", help="gets result files")
    parser.add_argument("--config", help="of a single checkpoint's run; a work dir brings it")
    parser.add_argument("--train", default="train", help="split on which heads are trained (%(default)s)")
    parser.add_argument("--test", default="val", help="split on which all is measured (%(default)s)")
    parser.add_argument("--layout", default="auto", choices=["auto", *READERS], help="(%(default)s)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="use only N photos of a split, spread evenly")
    parser.add_argument("--name", help="the pretraining's row in tables")
    add_device(parser)
    probe = parser.add_argument_group("probes only")
    probe.add_argument("--stages", nargs="+", type=int, help="stage maps put side by side (-2 -1)")
    probe.add_argument("--epochs", type=at_least(1), help="of the linear heads (15)")
    probe.add_argument("--seeds", nargs="+", type=at_least(0), help="one linear head each (0 1)")
    probe.add_argument(
        "--input-size", nargs=2, type=at_least(1), metavar=("HEIGHT", "WIDTH"), help="of the photos (240 320)"
    )
    probe.add_argument("--neighbours", type=at_least(0), help="k of the k-NN probe; 0 leaves it out (20)")
    probe.add_argument("--network", metavar="NAME", help="timm's name of the network in a file of somebody else's")
    probe.add_argument(
        "--output-stride", type=int, choices=[8, 16, 32], help="dilate the last stages to it (default: as pretrained)"
    )
    probe.add_argument("--which", choices=["teacher", "student"], help="branch (default: what the method transfers)")
    probe.add_argument(
        "--decoder",
        action="store_true",
        default=None,
        help="append the decoder's map (VADeR, SlotCon's); --stages -1 takes it",
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    from slotcon_plugin.actions.evaluating import evaluate
    from slotcon_plugin.errors import UserError

    settings = {name: getattr(args, name) for name in _OF_PROBES if getattr(args, name) is not None}
    if settings and args.measure != "probe":
        raise UserError(f"--{next(iter(settings)).replace('_', '-')} is for probes, not for --measure {args.measure}")
    settings |= {name: tuple(settings[name]) for name in ("stages", "seeds", "input_size") if name in settings}
    split = {name: getattr(args, name) for name in ("out", "config", "train", "test", "layout", "limit", "name")}
    print(evaluate(args.run_dir, args.data, args.measure, device=args.device, **split, **settings))
