"""Judge a pretraining without fine-tuning, beside what random weights give.

    slotcon evaluate runs/a labelled/
    slotcon evaluate runs/a labelled/ --measure prototypes
    slotcon evaluate runs/b held_out_photos/ --measure retrieval
    slotcon evaluate moco_v2_200ep_pretrain.pth.tar /data/camvid --test test --out work_dirs/probe

LABELLED holds images/train, images/val and masks of class indices in annotations/; or is a data set in a layout that
docs/evaluate.md lists.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device, add_labelled_set
from slotcon_plugin.cli.settings import EVALUATING, add_settings, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.evaluate`."""
    from slotcon_plugin.actions.evaluating import MEASURES

    parser.epilog = "measures:\n" + "\n".join(f"  {name:11} {what}" for name, what in MEASURES.items())
    parser.add_argument("run_dir", metavar="RUN", help="work dir or checkpoint; to be probed, one of any known kind")
    parser.add_argument("data", help="labelled set; for --measure retrieval a folder of photos")
    parser.add_argument("--measure", choices=list(MEASURES), default="probe", help="(%(default)s)")
    parser.add_argument("--out", metavar="DIR", help="gets result files")
    parser.add_argument("--config", help="of a single checkpoint's run; a work dir brings it")
    parser.add_argument("--train", default="train", help="split on which heads are trained (%(default)s)")
    parser.add_argument("--test", default="val", help="split on which all is measured (%(default)s)")
    add_labelled_set(parser)
    add_device(parser)
    add_settings(parser, EVALUATING)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    from slotcon_plugin.actions.evaluating import evaluate

    names = ("out", "config", "train", "test", "layout", "protocol", "limit", "pretraining", "device")
    given = {name: getattr(args, name) for name in names} | settings_of(args, EVALUATING)
    print(evaluate(args.run_dir, args.data, args.measure, **given))
