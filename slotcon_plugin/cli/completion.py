"""Print a script that completes the slotcon command.

    slotcon completion bash > ~/.local/share/bash-completion/completions/slotcon
    slotcon completion zsh > ~/.zfunc/_slotcon            # with ~/.zfunc in $fpath

A new shell knows it.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=["bash", "zsh"], help="whose script")


def run(args: argparse.Namespace) -> None:
    """Print the script."""
    from slotcon_plugin.cli import build_parser
    from slotcon_plugin.errors import UserError

    try:
        import shtab
    except ImportError as error:
        raise UserError("completion needs shtab: pip install shtab") from error
    print(shtab.complete(build_parser(), args.shell))
