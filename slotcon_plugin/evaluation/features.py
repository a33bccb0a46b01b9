"""Frozen features of a backbone for labelled photos: computed once, used by every probe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slotcon_plugin.evaluation.labelled_set import LabelledSet, _read_photo, resize_image

# photos as numbers 0-255, RGB; what every checkpoint this project writes or reads was trained with
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def normalise(images: np.ndarray | Tensor) -> Tensor:
    """Photos (B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, ImageNet mean and standard deviation."""
    images = torch.as_tensor(images).permute(0, 3, 1, 2).float()
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def labelled_batches(
    data: LabelledSet, input_size: tuple[int, int], batch_size: int
) -> Iterator[tuple[Tensor, list[np.ndarray]]]:
    """Normalised photos (B, 3, H, W) at `input_size` (height, width), and their masks in the masks' own size."""
    for start in range(0, len(data), batch_size):
        pairs = [data.read(i) for i in range(start, min(start + batch_size, len(data)))]
        photos = np.stack([resize_image(pair.image, *input_size) for pair in pairs])
        yield normalise(photos), [pair.label for pair in pairs]


def stage_features(backbone: nn.Module, images: Tensor, stages: Sequence[int]) -> Tensor:
    """Maps of several stages side by side, on the grid of the finest of them.

    Args:
        backbone: (B, 3, H, W) -> tuple of stage maps.
        images: normalised, (B, 3, H, W).
        stages: indices into that tuple; negative ones count from the last.

    Returns:
        (B, sum of channels, h, w) float32; coarser maps are upsampled bilinearly.

    Raises:
        ValueError: the backbone does not return maps, or has no such stage.
    """
    maps = backbone(images)
    if not isinstance(maps, (tuple, list)) or any(m.ndim != 4 for m in maps):
        raise ValueError(f"{type(backbone).__name__}: expected a tuple of stage maps (B, C, h, w), one a stage")
    if any(not -len(maps) <= stage < len(maps) for stage in stages):
        raise ValueError(f"stages: this backbone has {len(maps)} (0 to {len(maps) - 1}), got {list(stages)}")
    chosen = [maps[stage].float() for stage in stages]
    grid = max((m.shape[-2:] for m in chosen), key=lambda size: size[0] * size[1])
    return torch.cat([_to_grid(m, grid) for m in chosen], 1)


def _to_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if maps.shape[-2:] == grid else F.interpolate(maps, grid, mode="bilinear", align_corners=False)


@torch.no_grad()
def calibrate_batch_norm(
    backbone: nn.Module, photos: Sequence[Path], input_size: tuple[int, int], batch_size: int = 16
) -> None:
    """Set the running statistics of all BatchNorm layers, in place, to their means over unlabelled photos.

    The fair baseline of a random backbone: part of what pretraining seems to gain is statistics alone.

    Raises:
        ValueError: there is no photo, or no BatchNorm layer.
    """
    layers = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not photos or not layers:
        raise ValueError(f"BN calibration: expected photos and BatchNorm layers, got {len(photos)} and {len(layers)}")
    momentum, training = [layer.momentum for layer in layers], backbone.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean over the batches
    backbone.train()
    for batch in _photo_batches(photos, input_size, batch_size):
        backbone(batch)
    backbone.train(training)
    for layer, value in zip(layers, momentum):
        layer.momentum = value


def _photo_batches(photos: Sequence[Path], input_size: tuple[int, int], batch_size: int) -> Iterable[Tensor]:
    """Whole batches of normalised photos; a last smaller one only if it is the only one."""
    whole = max(len(photos) // batch_size, 1) * batch_size
    for start in range(0, min(whole, len(photos)), batch_size):
        images = [resize_image(_read_photo(path), *input_size) for path in photos[start : start + batch_size]]
        yield normalise(np.stack(images))
