"""The command line that the conversion tools and ``slotcon export`` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from slotcon_plugin.arguments import tool_parser
from slotcon_plugin.convert.convert import convert
from slotcon_plugin.convert.sources import SOURCES, known_kinds
from slotcon_plugin.convert.summary import summary


def run(target: str, description: str, argv: Sequence[str] | None = None) -> None:
    """Parse, convert, say what was done."""
    parser = tool_parser(description, known_kinds())
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint to read, or a run's work dir")
    parser.add_argument("out", metavar="OUT", help="file to write; nothing is written when the proof fails")
    add_options(parser, with_config=target not in ("torchvision", "timm"))
    args = parser.parse_args(argv)
    meta = convert(args.checkpoint, args.out, target, overwrite=args.overwrite, **options_of(args))
    print(summary(args.out, meta))


def add_options(parser: argparse.ArgumentParser, with_config: bool = True) -> None:
    """What may have to be said of a checkpoint, and of what is written."""
    parser.add_argument(
        "--branch",
        choices=("teacher", "student"),
        help="branch to take (default: what the method's authors transfer; the teacher for SlotCon)",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="timm's name of what CKPT holds (convnext_tiny), if it is no plain ResNet and not this project's",
    )
    parser.add_argument("--prefix", help="what stands before the backbone's keys, if CKPT holds several backbones")
    parser.add_argument(
        "--kind",
        choices=[source.kind for source in SOURCES],
        metavar="KIND",
        help="kind of CKPT, if its keys do not tell it: one of those below",
    )
    parser.add_argument("--colour-order", choices=("RGB", "BGR"), help="that the weights were trained on")
    for name in ("mean", "std"):
        parser.add_argument(f"--{name}", nargs=3, type=float, metavar="X", help="as above, for pixels in 0..255")
    parser.add_argument(
        "--no-fpn", action="store_true", help="leave out a feature pyramid or FCN head (timm takes none)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    if with_config:
        parser.add_argument(
            "--config", help="transfer config: prove with the backbone that it builds, not with the recipe's"
        )


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_options` has collected, as arguments of :func:`~slotcon_plugin.convert.convert`."""
    return {
        **{name: getattr(args, name) for name in ("branch", "kind", "prefix", "network")},
        "config": getattr(args, "config", None),
        "fpn": not args.no_fpn,
        "declared": {"colour_order": args.colour_order, "mean": args.mean, "std": args.std},
    }
