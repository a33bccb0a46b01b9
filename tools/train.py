"""Pretrain on unlabelled photos (and, for transfer configs, fine-tune).

    python tools/train.py configs/pretrain/slotcon_demo.py
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --work-dir runs/mine \\
        --cfg-options data_root=/data/photos train_cfg.max_epochs=100
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --work-dir runs/mine --resume

Several GPUs: tools/dist_train.sh; Slurm: tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, DictAction


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
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="override the config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    if not Path(args.config).is_file():
        sys.exit(f"config {args.config} does not exist; the pretraining configs are in configs/pretrain/")
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"

    from slotcon_plugin.apis import pretrain

    pretrain(cfg, resume=args.resume)


if __name__ == "__main__":
    main()
