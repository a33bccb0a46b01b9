"""Draw the two views of a few photos, the region that both show, and that region after the inverse augmentation.

A check of the data by eye: in the last picture of each row, tiles of the two views alternate, and edges must meet.

Examples:
    python tools/visualize_views.py path/to/photos views.png
    python tools/visualize_views.py path/to/photos views.png --num 8 --epoch 3 --no-colour
    python tools/visualize_views.py configs/pretrain/slotcon_coco.py views.png   # the config's photos and settings
"""

import argparse
from pathlib import Path

from slotcon_plugin.arguments import tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.config import load_config
from slotcon_plugin.config.find import names_pretraining
from slotcon_plugin.data import ImageFolder, SampleKey, TwoViewDataset
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import replacing
from slotcon_plugin.registry import DATASETS
from slotcon_plugin.visualization.views import views_sheet


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of photos, or a pretraining config")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--num", type=int, default=5, help="how many photos (default 5)")
    parser.add_argument("--first", type=int, default=0, help="index of the first of them (default 0)")
    parser.add_argument("--epoch", type=int, default=0, help="the epoch whose crops to draw (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--view-size", type=int, default=224, help="side of the views, for a folder (default 224)")
    parser.add_argument("--no-colour", action="store_true", help="leave the photometric augmentation out")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if names_pretraining(args.data):
        dataset = DATASETS.build(load_config(args.data).train_dataloader.dataset)
    else:
        dataset = TwoViewDataset(ImageFolder(args.data), view_size=args.view_size)
    indices = range(args.first, min(args.first + args.num, len(dataset)))
    if not indices:
        raise UserError(f"--first: there is no photo {args.first}, {args.data} has {len(dataset)}")
    keys = [SampleKey(args.seed, args.epoch, index) for index in indices]
    sheet = views_sheet(dataset, keys, augment=not args.no_colour)
    with replacing(args.out) as partial:
        sheet.save(partial, format="PNG")
    print(f"{len(keys)} photos in {args.out}")


if __name__ == "__main__":
    run_command(main)
