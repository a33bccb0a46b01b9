"""Learn from unlabelled photos.

    slotcon pretrain photos/ --out runs/a
    slotcon pretrain photos/ --out runs/b --method vader --init resnet50.pth --epochs 20
    slotcon pretrain photos/ --out runs/b --method vader --init resnet50.pth --epochs 20 --resume
    slotcon pretrain photos/ --out runs/b --init resnet50.pth --probe labelled/     # does it get better than it was?
    slotcon pretrain photos/ --out runs/c --init timm --network convnext_tiny
    slotcon pretrain --config slotcon_coco --data-root /data/coco --gpus 8
    slotcon pretrain photos/ --out runs/d --cfg-options train_dataloader.batch_size=32

Without --config the preset of the method is taken: METHOD_continue with --init (densecl has none), else METHOD_small.
`slotcon configs` lists the others. Several machines or Slurm: tools/dist_train.sh, tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse

from slotcon_plugin.arguments import (
    add_batch_mode,
    add_budget,
    add_cfg_options,
    add_gpus,
    add_init,
    add_launcher,
    add_out,
    add_resume,
)
from slotcon_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of :func:`slotcon_plugin.pretrain`."""
    parser.add_argument("photos", nargs="?", help="folder, nested or flat, or a text file with a path a line")
    add_out(parser, "where logs and checkpoints go (default: work_dirs/CONFIG)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--method", help="slotcon, slotcon_decoder, vader or densecl (slotcon)")
    what.add_argument("--config", metavar="NAME", help="a config's name or file")
    add_init(parser)
    parser.add_argument(
        "--network", metavar="NAME", help="resnet50, or a name of timm's (default: what --init holds, or the preset's)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="how often each photo is seen (default: the config's)")
    add_budget(parser)
    parser.add_argument(
        "--probe",
        metavar="LABELLED",
        help="labelled set: its frozen features are probed before training and after each epoch, on a hundred photos",
    )
    parser.add_argument("--data-root", metavar="DIR", help="the config's data_root, in place of PHOTOS")
    add_resume(parser)
    add_gpus(parser)
    add_batch_mode(parser)
    add_cfg_options(parser)
    add_launcher(parser)


def run(args: argparse.Namespace) -> int | None:
    """Pretrain; with ``--gpus`` start the processes that do.

    Raises:
        UserError: two places for the photos.
    """
    if args.photos and args.data_root:
        raise UserError(f"photos are given twice, as {args.photos} and by --data-root {args.data_root}: leave one out")
    if args.gpus > 1 and args.launcher == "none":
        from slotcon_plugin.launch import on_gpus

        return on_gpus(args.words, args.gpus)
    from slotcon_plugin.actions.pretraining import pretrain

    pretrain(
        args.photos,
        args.out,
        args.method,
        args.init,
        args.epochs,
        config=args.config,
        network=args.network,
        init_title=args.init_title,
        data_root=args.data_root,
        options=args.cfg_options,
        probe=args.probe,
        budget=args.budget,
        resume=args.resume,
        overwrite=args.overwrite,
        batch_mode=args.batch_mode,
        launcher=args.launcher,
    )
    return None
