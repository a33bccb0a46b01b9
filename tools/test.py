"""Evaluate a checkpoint of an mmdet or mmsegmentation transfer run on its test set.

    python tools/test.py configs/transfer/mmseg/fcn_r50_cityscapes.py work_dirs/fcn_r50_cityscapes/iter_90000.pth
    python tools/test.py configs/transfer/mmdet/mask_rcnn_r50_fpn_1x_coco.py CKPT --data-root /data/coco

Prints the metrics and leaves them in WORK_DIR/test_result.json. Several GPUs: tools/dist_test.sh.
detectron2: python tools/train_d2.py --eval-only.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, DictAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file below configs/transfer/mmdet or configs/transfer/mmseg")
    parser.add_argument("checkpoint", help="checkpoint of a run of this config")
    parser.add_argument("--work-dir", help="where logs and the result go (default: the checkpoint's folder)")
    parser.add_argument("--data-root", metavar="DIR", help="the data set's folder, where it is not the config's")
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
    for path in (args.config, args.checkpoint):
        if not Path(path).is_file():
            sys.exit(f"{path} does not exist")
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or str(Path(args.checkpoint).parent)

    from slotcon_plugin.transfer.openmmlab import evaluate, is_transfer_config

    if not is_transfer_config(cfg):
        sys.exit(f"{args.config} is no config of mmdet or mmseg; frozen features are judged by tools/eval_probe.py")
    try:
        evaluate(cfg, args.checkpoint, data_root=args.data_root)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
