"""The main job from end to end in minutes: photos, pretraining, backbone, proof that it learned, pictures.

    slotcon quickstart                                    # on demo scenes, made on the spot
    slotcon quickstart photos/ --out runs/first
    slotcon quickstart photos/ --out runs/first --resume    # one that was stopped

With photos of your own it needs 72 at least, and takes 2,000 at most.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.quickstart.quickstart`."""
    parser.add_argument("photos", nargs="?", help="folder of your photos (default: demo scenes, made on the spot)")
    add_out(parser, "where everything goes (%(default)s)", default="work_dirs/quickstart")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the try in the work dir, in place of a new one"
    )


def run(args: argparse.Namespace) -> None:
    """All of it."""
    from slotcon_plugin.quickstart import quickstart

    quickstart(args.photos, args.out, args.resume)
