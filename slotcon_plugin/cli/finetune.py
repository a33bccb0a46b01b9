"""Train a detector or a segmenter on labels of your own, from a pretraining.

    slotcon finetune boxes/ --backbone runs/a --out runs/detector
    slotcon finetune masks/ --backbone runs/a --out runs/segmenter --iterations 500
    slotcon finetune masks/ --out runs/from_random      # what to compare with; of another network: --network resnet50
    slotcon finetune masks/ --backbone lite0.safetensors --network tf_efficientnet_lite0 --pretraining ImageNet

LABELS holds images/train, images/val, and annotations/train.json, annotations/val.json (boxes or outlines, of COCO's
form: mmdet trains a detector) or annotations/train, annotations/val (masks of class indices: mmsegmentation trains a
segmenter). Classes follow from them, the network from the backbone. Recipes for COCO, Cityscapes, ADE20K and VOC, and
detectron2: tools/train.py, tools/train_d2.py and docs/transfer.md.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import (
    add_batch_mode,
    add_cfg_options,
    add_gpus,
    add_launcher,
    add_no_fpn,
    add_out,
    add_resume,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.finetune`."""
    parser.add_argument("labels", metavar="LABELS", help="folder of photos and labels")
    parser.add_argument(
        "--backbone", metavar="RUN", help="work dir or checkpoint (default: random weights, to compare)"
    )
    add_out(parser, "where logs and checkpoints go (default: work_dirs/CONFIG)")
    parser.add_argument("--iterations", type=int, metavar="N", help="of training (default: the config's 2,000)")
    parser.add_argument("--config", metavar="NAME", help="another transfer config, by name or file")
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="resnet50 or timm's name: of a file that does not say it, or of random weights (default there: resnet18)",
    )
    parser.add_argument("--pretraining", metavar="NAME", help="what to call the backbone in results")
    add_no_fpn(parser)
    add_resume(parser)
    add_gpus(parser)
    add_batch_mode(parser)
    add_cfg_options(parser)
    add_launcher(parser)


def run(args: argparse.Namespace) -> int | None:
    """Fine-tune; with ``--gpus`` start the processes that do."""
    if args.gpus > 1 and args.launcher == "none":
        from slotcon_plugin.launch import on_gpus

        return on_gpus(args.words, args.gpus)
    from mmengine.dist import is_main_process

    from slotcon_plugin.actions.finetuning import finetune

    names = ("config", "network", "pretraining", "fpn", "resume", "overwrite", "batch_mode", "launcher")
    more = {name: getattr(args, name) for name in names}
    made = finetune(args.labels, args.backbone, args.out, args.iterations, options=args.cfg_options, **more)
    if is_main_process():
        print(made)
    return None
