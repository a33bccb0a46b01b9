"""Evaluate a checkpoint of an mmdet or mmsegmentation transfer run on its test set.

    python tools/test.py work_dirs/fcn_r50_cityscapes
    python tools/test.py configs/transfer/mmdet/mask_rcnn_r50_fpn_1x_coco.py CKPT --data-root /data/coco

A run's work dir stands for its config and its newest checkpoint. Prints the metrics, leaves them in
WORK_DIR/test_result.json. Every weight of the model has to be in the checkpoint,
and the result of another checkpoint is not replaced. Several GPUs: tools/dist_test.sh.
detectron2: python tools/train_d2.py --eval-only.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import add_cfg_options, add_launcher, tool_parser
from slotcon_plugin.command import run_command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="config file below configs/transfer/mmdet or .../mmseg, or a run's work dir")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint of a run of this config (default: the work dir's)")
    parser.add_argument("--work-dir", help="where logs and the result go (default: the checkpoint's folder)")
    parser.add_argument(
        "--pretraining", metavar="NAME", help="name of the backbone in tables, if the checkpoint does not say it"
    )
    parser.add_argument("--data-root", metavar="DIR", help="the data set's folder, where it is not the config's")
    add_cfg_options(parser)
    add_launcher(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    from slotcon_plugin.checkpoints.runs import config_of, find_checkpoint
    from slotcon_plugin.config import apply_options, read_config
    from slotcon_plugin.errors import UserError
    from slotcon_plugin.transfer.openmmlab import evaluate, is_transfer_config

    cfg = read_config(config_of(args.config))
    checkpoint = find_checkpoint(args.checkpoint or args.config)
    if not is_transfer_config(cfg):
        raise UserError(
            f"{args.config} is no config of mmdet or mmseg; frozen features are judged by tools/eval_probe.py"
        )
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or str(checkpoint.parent)
    data_root = args.cfg_options.pop("data_root", args.data_root)
    apply_options(cfg, args.cfg_options)
    evaluate(cfg, str(checkpoint), data_root=data_root, pretraining=args.pretraining)


if __name__ == "__main__":
    run_command(main)
