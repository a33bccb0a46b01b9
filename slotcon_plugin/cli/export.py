"""Write the backbone of a pretraining for the framework that goes on with it, proved by comparing features.

    slotcon export runs/a backbone.pkl --target detectron2
    slotcon export runs/a                                 # runs/a/backbone_torchvision.pth
    slotcon export moco_v2_200ep_pretrain.pth.tar r50.pth --target mmseg

RUN is a work dir, or a checkpoint of any kind listed below. docs/convert.md says what to set in each framework.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.convert.cli import add_options, options_of
from slotcon_plugin.convert.sources import known_kinds
from slotcon_plugin.convert.writers import TARGETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.export`."""
    parser.epilog = known_kinds()
    parser.add_argument("run_dir", metavar="RUN", help="work dir or checkpoint")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("out", metavar="OUT", nargs="?", help="file to write (default: backbone_TARGET in the work dir)")
    out.add_argument("--out", dest="named_out", metavar="OUT", help="the same, as other commands have it")
    parser.add_argument("--target", choices=sorted(TARGETS), default="torchvision", help="(%(default)s)")
    add_options(parser)


def run(args: argparse.Namespace) -> None:
    """Export."""
    from slotcon_plugin.actions.exporting import export

    print(export(args.run_dir, args.out or args.named_out, args.target, overwrite=args.overwrite, **options_of(args)))
