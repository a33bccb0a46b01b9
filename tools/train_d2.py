"""Fine-tune a detector of detectron2 from a pretraining checkpoint.

    python tools/train_d2.py --config-file configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml \\
        --backbone work_dirs/slotcon_coco --num-gpus 8
    python tools/train_d2.py --config-file ... --backbone CKPT --num-gpus 1 --images-per-gpu 4 \\
        --data-root /data/coco OUTPUT_DIR runs/mine SEED 1
    python tools/train_d2.py --config-file ... --num-gpus 8 --eval-only MODEL.WEIGHTS runs/mine/model_final.pth

The checkpoint (any that tools/convert_to_d2.py reads) is converted and proved on the way; without --backbone the
config's MODEL.WEIGHTS counts, which may also be a whole detector, and if that is empty training starts from random
weights. The result is left in OUTPUT_DIR/result.json. Without a GPU one process trains on the CPU.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_batch_mode, add_no_fpn, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="YAML", help="below configs/transfer/detectron2")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs of this machine")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0 when there are several")
    parser.add_argument("--backbone", metavar="CKPT", help="pretraining checkpoint to start from")
    parser.add_argument("--data-root", metavar="DIR", help="the data set's folder (default: where detectron2 looks)")
    parser.add_argument("--images-per-gpu", type=int, metavar="N", help="of one pass (default: the recipe's on 8 GPUs)")
    add_batch_mode(parser)
    parser.add_argument("--pretraining", metavar="NAME", help="name of the backbone in tables (default: its method)")
    add_no_fpn(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--overwrite", action="store_true", help="set a used OUTPUT_DIR aside and start anew")
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="evaluate MODEL.WEIGHTS (with --resume: the last checkpoint in OUTPUT_DIR) and nothing else; leaves "
        "test_result.json in OUTPUT_DIR (default: the checkpoint's folder)",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override the config")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    try:
        from slotcon_plugin.transfer import d2
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; docs/install.md says how detectron2 is installed") from error
    hardware = d2.Hardware(args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    shared = {"data_root": args.data_root, "pretraining": args.pretraining, "resume": args.resume}
    if args.eval_only:
        if args.backbone or args.overwrite or not args.fpn:
            raise UserError(
                "--eval-only takes the model as MODEL.WEIGHTS; --backbone, --no-fpn and --overwrite are for training"
            )
        d2.evaluate(args.config_file, args.opts, hardware, **shared)
        return
    d2.train(
        args.config_file,
        args.opts,
        hardware,
        backbone=args.backbone,
        images_per_gpu=args.images_per_gpu,
        batch_mode=args.batch_mode,
        overwrite=args.overwrite,
        fpn=args.fpn,
        **shared,
    )


if __name__ == "__main__":
    run_command(main)
