"""Pretrain on unlabelled photos (and, for transfer configs, fine-tune).

    python tools/train.py configs/pretrain/slotcon_demo.py
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --data-root /data/coco
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --photos /data/photos --work-dir runs/mine \\
        --cfg-options train_cfg.max_epochs=100
    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py --photos /data/photos --work-dir runs/mine --resume
    python tools/train.py configs/pretrain/slotcon_small.py --photos /data/photos --budget 30m
    python tools/train.py configs/pretrain/slotcon_small.py --photos /data/photos --init resnet18.pth

Transfer configs of mmdet and mmsegmentation (detectron2: tools/train_d2.py); any checkpoint that
tools/convert_to_mmdet.py reads is converted and proved on the way, without one training starts from random weights:

    python tools/train.py configs/transfer/mmseg/fcn_r50_cityscapes.py --backbone runs/mine \\
        --data-root /data/cityscapes

Several GPUs: tools/dist_train.sh; Slurm: tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from slotcon_plugin.arguments import (
    add_batch_mode,
    add_budget,
    add_cfg_options,
    add_init,
    add_launcher,
    add_no_fpn,
    add_resume,
    tool_parser,
)
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/CONFIG)")
    add_resume(parser)
    add_cfg_options(parser)
    photos = parser.add_mutually_exclusive_group()
    photos.add_argument(
        "--data-root", metavar="DIR", help="the config's data_root: where its data set lies (COCO's folder, ...)"
    )
    photos.add_argument(
        "--photos",
        metavar="PATH",
        help="photos of your own in place of the config's: a folder, nested or flat, or a text file with a path a line",
    )
    add_init(parser)
    add_budget(parser)
    add_batch_mode(parser)
    add_launcher(parser)
    transfer = parser.add_argument_group("transfer configs only")
    transfer.add_argument("--backbone", metavar="CKPT", help="checkpoint to start from, or a run's work dir")
    transfer.add_argument("--pretraining", metavar="NAME", help="name of the backbone in tables (default: its kind)")
    add_no_fpn(transfer)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.actions.pretraining import pretraining_config, settled_budget
    from slotcon_plugin.apis import pretrain
    from slotcon_plugin.config import apply_options, read_config
    from slotcon_plugin.errors import UserError
    from slotcon_plugin.transfer import openmmlab

    cfg = read_config(args.config)
    if openmmlab.is_transfer_config(cfg):
        if args.photos:
            raise UserError(f"--photos is for pretraining; {args.config} takes its data set from --data-root")
        if args.budget:
            raise UserError(f"--budget is for pretraining; the length of {args.config} is its recipe's")
        if args.init or args.init_title:
            raise UserError(f"--init is for pretraining; {args.config} starts from --backbone")
        cfg.launcher = args.launcher
        cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
        data_root = args.cfg_options.pop("data_root", args.data_root)
        apply_options(cfg, args.cfg_options)
        openmmlab.train(
            cfg,
            args.backbone,
            data_root,
            args.batch_mode,
            pretraining=args.pretraining,
            resume=args.resume,
            overwrite=args.overwrite,
            fpn=args.fpn,
        )
        return
    if args.backbone or args.pretraining or not args.fpn:
        raise UserError(f"{args.config} is a pretraining config: --backbone, --pretraining, --no-fpn are for transfer")
    cfg = pretraining_config(
        args.config,
        photos=args.photos,
        init=args.init,
        init_title=args.init_title,
        data_root=args.data_root,
        options=args.cfg_options,
    )
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.work_dir
    budget = settled_budget(args.budget, args.cfg_options)
    pretrain(cfg, args.resume, args.batch_mode, args.overwrite, budget)


if __name__ == "__main__":
    run_command(main)
