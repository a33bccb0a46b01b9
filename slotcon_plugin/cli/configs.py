"""List the configs that come with the package, say where one is, or write a copy to change.

    slotcon configs
    slotcon configs pretrain
    slotcon configs slotcon_small
    slotcon configs slotcon_small --out mine.py

Every command takes them by their names. A copy is one file with its bases in it, for a folder of your own; names that
its bases only compute with are left out, so that whatever you find in it does something.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.config.list_configs` and :func:`~slotcon_plugin.config.find_config`."""
    parser.add_argument("which", nargs="?", help="pretrain, transfer or benchmark (default: all), or a config's name")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a copy of the named config to this file")


def run(args: argparse.Namespace) -> None:
    """List, find, or copy."""
    from slotcon_plugin.config import find_config, list_configs, read_config, shipped, text_to_change
    from slotcon_plugin.errors import UserError
    from slotcon_plugin.files import require_writable, write_text

    kinds = sorted(path.name for path in (shipped() / "configs").iterdir() if path.is_dir())
    if args.out:
        if not args.which or args.which in kinds:
            raise UserError("--out FILE writes one config: say which, `slotcon configs` lists them")
        if args.out.suffix != ".py" or args.out.exists():
            raise UserError(f"--out {args.out}: expected a new file whose name ends in .py")
        require_writable(args.out)
        write_text(args.out, text_to_change(read_config(args.which)))
        return
    if args.which and args.which not in kinds:
        print(find_config(args.which))
        return
    for kind in [args.which] if args.which else kinds:
        found = list_configs(kind)
        width = max(map(len, found))
        print(f"{kind}:", *(f"  {name:{width}}  {line}" for name, line in found.items()), sep="\n")
