"""List the configs that come with the package, or say where one is.

    slotcon configs
    slotcon configs pretrain
    slotcon configs slotcon_small

Every command takes them by their names.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.config.list_configs` and :func:`~slotcon_plugin.config.find_config`."""
    parser.add_argument("which", nargs="?", help="pretrain, transfer or benchmark (default: all), or a config's name")


def run(args: argparse.Namespace) -> None:
    """List, or find."""
    from slotcon_plugin.config import find_config, list_configs, shipped

    kinds = sorted(path.name for path in (shipped() / "configs").iterdir() if path.is_dir())
    if args.which and args.which not in kinds:
        print(find_config(args.which))
        return
    for kind in [args.which] if args.which else kinds:
        found = list_configs(kind)
        width = max(map(len, found))
        print(f"{kind}:", *(f"  {name:{width}}  {line}" for name, line in found.items()), sep="\n")
