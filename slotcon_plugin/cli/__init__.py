"""The ``slotcon`` command: a module for each word, a thin wrapper around the function of that name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import slotcon_plugin
from slotcon_plugin.arguments import tool_parser
from slotcon_plugin.command import run_command

COMMANDS = {
    "pretrain": "learn from unlabelled photos",
    "export": "the backbone for detectron2, mmdet, mmseg, timm or torchvision",
    "finetune": "a detector or segmenter of your own labels, from a pretraining",
    "evaluate": "figures without fine-tuning, beside what random weights give",
    "embed": "vectors of photos, crops or positions, for search and deduplication",
    "look": "pictures: curves of the run, segments, prototypes, matches",
    "benchmark": "a whole plan: pretrain, convert, transfer, table",
    "configs": "what configs there are",
    "quickstart": "pretrain and judge a small backbone in minutes",
    "completion": "a script that completes this command in bash or zsh",
}

_DESCRIPTION = """
Pretrain dense representations on unlabelled photos and carry them into detection and segmentation.

    slotcon pretrain photos/ --out runs/a --method slotcon --epochs 20
    slotcon evaluate runs/a labelled/
    slotcon finetune labelled/ --backbone runs/a
    slotcon export runs/a backbone.pkl --target detectron2

`slotcon COMMAND --help` has examples of each. Status: 0 done, 1 failed, 2 wrong use, 75 stopped and worth starting
again, 130 interrupted.
"""


def build_parser(wanted: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser, with the arguments of the commands that are wanted: those of others need not be imported."""
    parser = tool_parser(_DESCRIPTION)
    parser.prog = "slotcon"
    parser.add_argument("--version", action="version", version=f"slotcon_plugin {slotcon_plugin.__version__}")
    words = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, line in COMMANDS.items():
        if name not in wanted:
            words.add_parser(name, help=line)
            continue
        module = import_module(f"slotcon_plugin.cli.{name}")
        command = words.add_parser(
            name, help=line, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line says, and leave the process as :func:`~slotcon_plugin.command.run_command` does."""
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]

    def run() -> int | None:
        args = build_parser(words[:1]).parse_args(words)
        args.words = words
        return args.run(args)

    run_command(run)
