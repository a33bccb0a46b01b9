"""Pretrain on unlabelled photos (and, for transfer configs, fine-tune).

    python tools/train.py configs/pretrain/slotcon_demo.py
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --data-root /data/photos --work-dir runs/mine \\
        --cfg-options train_cfg.max_epochs=100
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --data-root /data/photos --work-dir runs/mine --resume

Transfer configs of mmdet and mmsegmentation (detectron2: tools/train_d2.py); any checkpoint that
tools/convert_to_mmdet.py reads is converted and proved on the way, without one training starts from random weights:

    python tools/train.py configs/transfer/mmseg/fcn_r50_cityscapes.py --backbone runs/mine/epoch_800.pth \\
        --data-root /data/cityscapes

Several GPUs: tools/dist_train.sh; Slurm: tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/CONFIG)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="continue from the newest whole checkpoint in the work dir, or from the one given",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="set a used work dir aside (DIR.old1, ...) and start anew"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="override the config"
    )
    parser.add_argument(
        "--data-root",
        metavar="PATH",
        help="pretraining: your photos (a folder, nested or flat, or a text file with a path a line); "
        "transfer: the data set's folder, where it is not the config's",
    )
    parser.add_argument(
        "--batch-mode",
        choices=["accumulate", "scale-lr"],
        help="when GPUs x train_dataloader.batch_size is not the recipe's total batch: keep it (divide, accumulate) or "
        "train with what the GPUs hold, learning rate and steps scaled (default: as the config says)",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    transfer = parser.add_argument_group("transfer configs only")
    transfer.add_argument("--backbone", metavar="CKPT", help="pretraining checkpoint to start from")
    transfer.add_argument("--pretraining", metavar="NAME", help="name of the backbone in tables (default: its kind)")
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    from slotcon_plugin.config import load_config

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"

    from slotcon_plugin.transfer import openmmlab

    if openmmlab.is_transfer_config(cfg):
        try:
            openmmlab.train(
                cfg,
                args.backbone,
                args.data_root,
                args.batch_mode,
                pretraining=args.pretraining,
                resume=args.resume,
                overwrite=args.overwrite,
            )
        except ValueError as error:
            sys.exit(f"error: {error}")
        return
    if args.backbone or args.pretraining:
        sys.exit(f"{args.config} is a pretraining config: --backbone and --pretraining are for transfer")

    from slotcon_plugin.apis import pretrain, use_photos
    from slotcon_plugin.data.dataset import BrokenPhotosError
    from slotcon_plugin.engine import CollapseError, NonFiniteLossError

    try:
        if args.data_root:
            use_photos(cfg, args.data_root)
        pretrain(cfg, resume=args.resume, batch_mode=args.batch_mode, overwrite=args.overwrite)
    except (ValueError, FileNotFoundError, BrokenPhotosError, CollapseError, NonFiniteLossError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
