"""Draw what a pretraining has learned.

    slotcon look runs/a                                           # curves of the run
    slotcon look runs/a runs/b --kind curves --out compare.html   # of both
    slotcon look runs/a photos/ --limit 24 --out groups.png       # photos beside their segments
    slotcon look runs/a photos/ --kind prototypes --prototypes 3 17 42
    slotcon look runs/b a.jpg b.jpg --kind retrieval --points 0.5,0.5 0.2,0.8

--out *.png writes one picture, *.html one self-contained page. A prototype has the same number and colour in every
picture of a model. The views that training makes of photos: tools/visualize_views.py.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_device
from slotcon_plugin.cli.settings import LOOKING, add_settings, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.look`."""
    from slotcon_plugin.actions.looking import KINDS

    parser.epilog = "kinds:\n" + "\n".join(f"  {name:11} {what}" for name, what in KINDS.items())
    parser.add_argument("run_dir", metavar="RUN", help="work dir, or a checkpoint beside its config")
    parser.add_argument("photos", nargs="*", help="photos, or folders of them; for curves further runs")
    parser.add_argument("--out", metavar="FILE", help=".png or .html (default: KIND.html in the work dir)")
    parser.add_argument(
        "--kind", choices=list(KINDS), help="default: curves without photos, else groups if there are prototypes"
    )
    add_device(parser)
    add_settings(parser, LOOKING)


def run(args: argparse.Namespace) -> None:
    """Draw."""
    from slotcon_plugin.actions.looking import look

    curves = args.kind == "curves" or not (args.kind or args.photos)
    settings = settings_of(args, LOOKING) | ({} if curves else {"device": args.device})
    print(f"wrote {look(args.run_dir, args.photos, args.out, args.kind, **settings)}")
