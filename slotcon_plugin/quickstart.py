"""The main job from end to end, small: photos -> pretraining -> backbone -> proof that it learned -> pictures."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from slotcon_plugin.apis import pretrain, use_photos
from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.command import duration, own_command
from slotcon_plugin.config import load_config
from slotcon_plugin.convert import convert
from slotcon_plugin.data import TwoViewDataset
from slotcon_plugin.devices import choose_device
from slotcon_plugin.engine import lock_work_dir, set_aside
from slotcon_plugin.engine.console import SCREEN
from slotcon_plugin.engine.last_checkpoint import last_checkpoint
from slotcon_plugin.engine.progress import table
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import open_labelled_set
from slotcon_plugin.evaluation.arms import load_probe_arms
from slotcon_plugin.evaluation.pixel_retrieval import evaluate_pixel_retrieval
from slotcon_plugin.evaluation.run import probe_arms
from slotcon_plugin.files import require_writable
from slotcon_plugin.photos import evenly_spaced, list_photos
from slotcon_plugin.registry import DATASETS
from slotcon_plugin.visualization.run import visualize_groups

_IMAGES_SEEN = 10_500  # nine epochs of the demo scenes: six to seven minutes on two cores
_FEWEST, _MAX_PHOTOS, _HELD_OUT, _PLACES = 72, 2000, 48, 8
_SCENES = {"train": 160, "val": 80}  # with masks, of the demo scenes


class Gain(NamedTuple):
    """What pretraining has changed.

    Attributes:
        figure: what was measured, percent: ``'mIoU'``.
        how: on what, and in which way.
        pretrained, random: of the backbone, and of one with random weights.
    """

    figure: str
    how: str
    pretrained: float
    random: float

    def __str__(self) -> str:
        ours, theirs = round(self.pretrained, 1), round(self.random, 1)
        verdict = "" if ours > theirs else ": nothing gained in a run this short"
        return f"{ours - theirs:+.1f} {self.figure} over random weights: {ours} against {theirs}{verdict}\n{self.how}"


def choose_photos(folder: Path) -> tuple[list[str], list[str]]:
    """Choose photos of a folder, spread evenly: paths to train on, and some that are held out.

    Raises:
        UserError: there are fewer photos than some batches and some to look at.
    """
    found = [os.path.abspath(folder / name) for name in list_photos(folder)]
    photos = [path for path in found if "\n" not in path]
    if left_out := len(found) - len(photos):
        SCREEN.print(f"left out {left_out} photos with a line break in their path: the lists here have a photo a line")
    if len(photos) < _FEWEST:
        raise UserError(
            f"{folder} has {len(photos)} photos; the quickstart needs {_FEWEST} at least (or no folder: it then "
            "takes demo scenes)"
        )
    chosen = evenly_spaced(len(photos), _MAX_PHOTOS)
    apart = max(len(chosen) // _HELD_OUT, 9)
    return tuple([photos[i] for i in indices] for indices in (np.delete(chosen, np.s_[::apart]), chosen[::apart]))


def _write_list(photos: Sequence[str], file: Path) -> str:
    file.write_bytes(b"".join(os.fsencode(path) + b"\n" for path in photos))
    return str(file)


def _judge_on_masks(config: str, checkpoint: Path, data_root: str, device: str) -> Gain:
    """Linear segmentation on frozen features of demo scenes, pretrained and random backbone."""
    train, val = (open_labelled_set(data_root, split).subset(limit) for split, limit in _SCENES.items())
    arms = load_probe_arms(checkpoint, config)
    results = probe_arms(arms, train, val, pretraining="slotcon", neighbours=0, seeds=(0, 1), device=device)
    how = f"of linear segmentation on frozen features: {len(train)} scenes to learn from, {len(val)} others to judge by"
    return Gain("mIoU", how, *(results[arm]["linear"].miou[0] for arm in ("checkpoint", "random")))


def _judge_without_masks(config: str, checkpoint: Path, held_out: str, device: str) -> Gain:
    """Whether a place of a photo is found again in another augmented view of it, pretrained and random backbone."""
    views = {**load_config(config).train_dataloader.dataset, "source": dict(type="ListFile", path=held_out)}
    views.pop("type")
    # places are looked up on the stride-16 map: views must share as many of its pixels as are looked up
    views.update(min_overlap_pixels=_PLACES, overlap_grid=views["view_size"] // 16)
    dataset = TwoViewDataset(**views)
    arms = load_probe_arms(checkpoint, config)
    found = [
        100 * evaluate_pixel_retrieval(embed, dataset, _PLACES, device=device)["pixel_accuracy"]
        for embed in (_last_map(arms[arm][0].eval().to(device)) for arm in ("checkpoint", "random"))
    ]
    how = f"found again in another view, of {len(dataset)} photos that were held out, by frozen features"
    return Gain("% of places", how, *found)


def _last_map(backbone: nn.Module):
    return lambda images: backbone(images)[-1]


def quickstart(photos: str | None = None, out: str = "work_dirs/quickstart", resume: bool = False) -> None:
    """Pretrain, export, judge, draw; says where all of it is, what was gained, and what to do next.

    Args:
        photos: folder of photos; None = demo scenes, made on the spot.
        out: work dir; one of an earlier try is set aside.
        resume: go on with the earlier try in place of that, wherever it was stopped.

    Raises:
        UserError: there are too few photos, or another process has the work dir.
    """
    began = time.monotonic()
    work_dir, device = Path(out), choose_device()[0]
    chosen = choose_photos(Path(photos)) if photos else None
    require_writable(work_dir / "groups.png", "--work-dir")
    lock_work_dir(work_dir)  # before a list of a living run is written over
    if numbered_checkpoints(work_dir) and not resume:
        set_aside(work_dir)

    if chosen:
        name = "slotcon_small"
        train, held_out = (_write_list(*it) for it in zip(chosen, (work_dir / "train.txt", work_dir / "held_out.txt")))
    else:
        name = "slotcon_demo"
    cfg = load_config(name)
    if chosen:
        use_photos(cfg, train)
    data_root = None if chosen else cfg.train_dataloader.dataset.source.root
    if data_root and not Path(data_root).exists():
        SCREEN.print(f"making demo scenes in {data_root}, once: less than a minute")
    num_photos, batch = len(DATASETS.build(cfg.train_dataloader.dataset.source)), cfg.train_dataloader.batch_size
    cfg.train_cfg.max_epochs = max(2, round(_IMAGES_SEEN / (num_photos // batch * batch)))
    cfg.work_dir, cfg.launcher = str(work_dir), "none"
    SCREEN.print("1 of 4      pretraining: most of the time, five to eight minutes on two idle CPU cores")
    runner = pretrain(cfg, resume=resume, next_steps=False)

    # The run says it: an earlier one may have left checkpoints with higher numbers.
    config, checkpoint = str(work_dir / f"{name}.py"), last_checkpoint(runner)
    branch = runner.model.transfer_branch
    SCREEN.print(f"\n2 of 4      exporting the {branch}'s backbone, some seconds")
    backbone = work_dir / "backbone_torchvision.pth"
    convert(checkpoint, backbone, "torchvision", overwrite=True)
    SCREEN.print("3 of 4      comparing its frozen features with those of random weights, less than a minute")
    torch.manual_seed(0)
    gain = (
        _judge_without_masks(config, checkpoint, held_out, device)
        if chosen
        else _judge_on_masks(config, checkpoint, data_root, device)
    )
    SCREEN.print("4 of 4      drawing what the prototypes have found, some seconds\n")
    shown = chosen[1] if chosen else [f"{data_root}/images/val"]
    picture = visualize_groups(config, str(checkpoint), shown, str(work_dir / "groups.png"), 16, 320, branch, device)

    rows = [
        ("done", f"in {duration(time.monotonic() - began)}, all of it in {work_dir}"),
        ("backbone", f"{backbone}, as torchvision names it"),
        ("groupings", f"{picture}: photos, and the parts that the prototypes found in them"),
        ("gained", str(gain)),
        ("next", "\n".join(_next_steps(work_dir, photos))),
    ]
    SCREEN.print(table(rows))


def _next_steps(work_dir: Path, photos: str | None) -> list[str]:
    command, here = own_command(), shlex.quote(str(work_dir))
    steps = [
        f"{command} look {here}    # curves of the run",
        f"{command} export {here} backbone.pkl --target detectron2    # or mmdet, mmseg, timm, torchvision",
    ]
    if photos:
        return [f"{command} pretrain {shlex.quote(photos)} --out runs/mine    # all of the photos, for longer", *steps]
    return [f"{command} quickstart my_photos/ --work-dir work_dirs/mine    # the same on photos of your own", *steps]
