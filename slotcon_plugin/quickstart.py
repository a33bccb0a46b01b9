"""The main job from end to end, small: photos -> pretraining -> backbone -> proof that it learned -> pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slotcon_plugin.apis import pretrain, use_photos
from slotcon_plugin.config import load_config
from slotcon_plugin.convert import convert
from slotcon_plugin.convert.runs import numbered_checkpoints
from slotcon_plugin.data import ListFile, TwoViewDataset
from slotcon_plugin.engine import set_aside
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import open_labelled_set
from slotcon_plugin.evaluation.pixel_retrieval import evaluate_pixel_retrieval
from slotcon_plugin.evaluation.run import load_probe_arms, probe_arms
from slotcon_plugin.photos import evenly_spaced, list_photos
from slotcon_plugin.visualization.run import visualize_groups

_IMAGES_SEEN = 13_000  # four to five minutes on two cores
_MAX_PHOTOS, _HELD_OUT, _BATCH, _PLACES = 2000, 48, 64, 8


def take_photos(folder: Path, work_dir: Path) -> tuple[Path, Path]:
    """Choose photos of a folder, spread evenly: a list file to train on and one of photos that are held out.

    Raises:
        UserError: there are fewer photos than one batch and some to look at.
    """
    found = [os.path.abspath(folder / name) for name in list_photos(folder)]
    photos = [path for path in found if "\n" not in path]
    if left_out := len(found) - len(photos):
        print(f"left out {left_out} photos with a line break in their path: the lists here have a photo a line")
    if len(photos) < _BATCH + 8:
        raise UserError(f"{folder} has {len(photos)} photos; the quickstart needs {_BATCH + 8} at least")
    chosen = evenly_spaced(len(photos), _MAX_PHOTOS)
    apart = max(len(chosen) // _HELD_OUT, 9)
    lists = []
    for name, indices in (("train", np.delete(chosen, np.s_[::apart])), ("held_out", chosen[::apart])):
        lists.append(work_dir / f"{name}.txt")
        lists[-1].write_bytes(b"".join(os.fsencode(photos[i]) + b"\n" for i in indices))
    return lists[0], lists[1]


def _judge_on_masks(config: str, checkpoint: Path, data_root: str) -> list[tuple[str, str, str]]:
    """Linear segmentation on frozen features of demo scenes, pretrained and random backbone."""
    train, val = (open_labelled_set(data_root, split).subset(limit) for split, limit in (("train", 160), ("val", 80)))
    arms = load_probe_arms(checkpoint, config)
    results = probe_arms(arms, train, val, pretraining="slotcon", neighbours=0, seeds=(0, 1))
    return [
        (arm, "linear segmentation of held-out scenes, mIoU", f"{results[arm]['linear'].miou[0]:.1f}") for arm in arms
    ]


def _judge_without_masks(config: str, checkpoint: Path, held_out: Path) -> list[tuple[str, str, str]]:
    """Whether a place of a photo is found again in another augmented view of it, pretrained and random backbone."""
    views = {**load_config(config).train_dataloader.dataset, "source": dict(type="ListFile", path=str(held_out))}
    views.pop("type")
    # places are looked up on the stride-16 map: views must share as many of its pixels as are looked up
    views.update(min_overlap_pixels=_PLACES, overlap_grid=views["view_size"] // 16)
    dataset = TwoViewDataset(**views)
    rows = []
    for arm, (backbone, _) in load_probe_arms(checkpoint, config).items():
        figures = evaluate_pixel_retrieval(_last_map(backbone.eval()), dataset, num_pairs=_PLACES)
        rows.append((arm, "places found again in another view, %", f"{100 * figures['pixel_accuracy']:.1f}"))
    return rows


def _last_map(backbone: nn.Module):
    return lambda images: backbone(images)[-1]


def quickstart(photos: str | None = None, out: str = "work_dirs/quickstart") -> None:
    """Pretrain, export, judge, draw; says where all of it is.

    Args:
        photos: folder of photos; None = demo scenes, made on the spot.
        out: work dir; one of an earlier try is set aside.

    Raises:
        UserError: there are too few photos.
    """
    work_dir = Path(out)
    if numbered_checkpoints(work_dir):
        set_aside(work_dir)  # of an earlier try
    work_dir.mkdir(parents=True, exist_ok=True)

    if photos:
        name = "slotcon_small"
        train, held_out = take_photos(Path(photos), work_dir)
        num_photos = len(ListFile(train))
    else:
        name, num_photos = "slotcon_demo", 1200
    cfg = load_config(name)
    if photos:
        use_photos(cfg, str(train))
    data_root = None if photos else cfg.train_dataloader.dataset.source.root
    cfg.train_cfg.max_epochs = max(2, round(_IMAGES_SEEN / (num_photos // _BATCH * _BATCH)))
    cfg.work_dir, cfg.launcher = str(work_dir), "none"
    print(f"== 1/4 pretraining for {cfg.train_cfg.max_epochs} epochs (`eta` in the log is the time that is left)")
    runner = pretrain(cfg)

    # asked of the run, since an earlier one may have left checkpoints with higher numbers
    config, checkpoint = str(work_dir / "config.py"), Path(runner.message_hub.get_info("last_ckpt"))
    cfg.dump(config)
    branch = runner.model.transfer_branch
    print(f"== 2/4 exporting the {branch}'s backbone")
    backbone = work_dir / "backbone_torchvision.pth"
    convert(checkpoint, backbone, "torchvision", overwrite=True)
    print("== 3/4 comparing frozen features with those of a random backbone")
    torch.manual_seed(0)
    rows = (
        _judge_without_masks(config, checkpoint, held_out) if photos else _judge_on_masks(config, checkpoint, data_root)
    )
    print("== 4/4 drawing what the prototypes have found")
    shown = list(ListFile(held_out).names) if photos else [f"{data_root}/images/val"]
    picture = visualize_groups(config, str(checkpoint), shown, str(work_dir / "groups.png"), 16, 320, "teacher", "cpu")

    print(f"\n{rows[0][1]}:")
    for arm, _, figure in rows:
        print(f"  {'pretrained' if arm == 'checkpoint' else arm:<12}{figure:>6}")
    print(f"\nbackbone   {backbone}\ngroupings  {picture}\ncheckpoint {checkpoint}")
    print(f"TensorBoard: tensorboard --logdir {work_dir}")
