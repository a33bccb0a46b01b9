"""How often a pixel finds the pixel of another view that shows the same place, on photos not trained on.

    python tools/eval_pixel_retrieval.py work_dirs/vader_demo data/demo_scenes/images/val
    python tools/eval_pixel_retrieval.py CONFIG data/demo_scenes/images/val work_dirs/vader_demo/iter_*.pth

Two augmented views are made of each photo, as the run's training does. In percent:
  pixel   the nearest of all photos' matching pixels is the right one
  photo   it is at least of the right photo
  place   the best pixel of the other view of the same photo is within 5 % of the view's side of the right place,
          or the nearest to it
The first rows are what guessing and random weights give. `slotcon evaluate --measure retrieval` does the same for one
run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from slotcon_plugin.arguments import add_device, tool_parser
from slotcon_plugin.cli.settings import EVALUATING, add_settings, settings_of
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="work dir of a pretraining, or its config")
    parser.add_argument("photos", help="folder of photos")
    parser.add_argument(
        "checkpoints", nargs="*", help="of each the branch that it transfers is judged (default: the work dir's newest)"
    )
    add_settings(parser, EVALUATING, "retrieval")
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, shares in [0, 1]")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.evaluation.pixel_retrieval import compare_pixel_retrieval, retrieval_table

    checkpoints = args.checkpoints or ([args.config] if Path(args.config).is_dir() else [])
    figures = compare_pixel_retrieval(
        args.config, args.photos, checkpoints, device=args.device, **settings_of(args, EVALUATING)
    )
    print(json.dumps(figures, indent=1) if args.json else retrieval_table(figures))


if __name__ == "__main__":
    run_command(main)
