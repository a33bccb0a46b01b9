"""Frozen features of a backbone for labelled photos: computed once, used by every probe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.labelled_set import LabelledSet, resize_image
from slotcon_plugin.evaluation.metrics import confusion_counts
from slotcon_plugin.models.grouping import pixel_owners
from slotcon_plugin.models.timm_backbone import whole_patches
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD
from slotcon_plugin.photos import network_sides, read_photos

_T = TypeVar("_T")

INPUT_SIZE = (240, 320)
"""Height and width at which a backbone sees photos, unless told otherwise."""
Resize = Callable[[int, int], tuple[int, int]]
"""(height, width) of a photo -> the size at which the backbone sees it."""


def to_size(height: int, width: int) -> Resize:
    """All photos to one size, whatever their shape."""
    return lambda *_: (height, width)


def to_short_side(side: int, multiple: int = 1) -> Resize:
    """Keep the shape; the short side becomes `side`, see `network_sides`."""
    return lambda height, width: network_sides(height, width, side, multiple)


def fitting(size: tuple[int, int], network: nn.Module) -> tuple[int, int]:
    """The (height, width) nearest to `size` that the network's patches cover, see `whole_patches`."""
    multiple = whole_patches(network)
    height, width = (max(1, round(side / multiple)) * multiple for side in size)
    return height, width


def normalise(images: np.ndarray) -> Tensor:
    """Photos (B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, minus mean, over standard deviation."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


class OwnPixels(nn.Module):
    """A backbone that was trained on other statistics than ImageNet's, for callers that normalise by those.

    Args:
        backbone: what it wraps.
        mean, std: of the RGB pixels in [0, 1] that it expects.
    """

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        theirs, spread = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        mean, std = (torch.as_tensor(value).flatten().cpu() for value in (mean, std))
        self.register_buffer("scale", (spread / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((theirs - mean) / std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` normalised by ImageNet's statistics -> what the backbone gives."""
        return self.backbone(images * self.scale + self.shift)


def pixels_of(model: nn.Module) -> tuple[Sequence[float] | Tensor, Sequence[float] | Tensor]:
    """Mean and standard deviation of RGB pixels in [0, 1] that a pretrainer is fed; ImageNet's if it does not say."""
    preprocessor = getattr(model, "data_preprocessor", None)
    return getattr(preprocessor, "mean", IMAGENET_MEAN), getattr(preprocessor, "std", IMAGENET_STD)


def photo_batches(items: Iterable[tuple[np.ndarray, _T]], batch_size: int) -> Iterator[tuple[Tensor, list[_T]]]:
    """Put photos of one size together; a batch ends early where the next photo has another size.

    Args:
        items: photos (H, W, 3) uint8 RGB, each with anything that belongs to it; at least one.
        batch_size: photos at a time.

    Yields:
        Normalised photos (B, 3, H, W) float32, and what belongs to each.
    """
    photos: list[np.ndarray] = []
    others: list[_T] = []
    for photo, other in items:
        if photos and (len(photos) == batch_size or photo.shape != photos[0].shape):
            yield normalise(np.stack(photos)), others
            photos, others = [], []
        photos.append(photo)
        others.append(other)
    yield normalise(np.stack(photos)), others


def labelled_batches(data: LabelledSet, resize: Resize, batch_size: int) -> Iterator[tuple[Tensor, list[np.ndarray]]]:
    """Batches of normalised photos (B, 3, H, W), see :func:`photo_batches`, and their masks in the masks' own size."""
    screen = Console(stderr=True)
    indices = track(range(len(data)), data.name, console=screen, transient=True, disable=not screen.is_terminal)
    items = map(data.read, indices)
    return photo_batches(((resize_image(image, *resize(*label.shape)), label) for image, label in items), batch_size)


def stage_features(backbone: nn.Module, images: Tensor, stages: Sequence[int]) -> Tensor:
    """Maps of several stages side by side, on the grid of the finest of them.

    Args:
        backbone: (B, 3, H, W) -> tuple of stage maps.
        images: normalised, (B, 3, H, W).
        stages: indices into that tuple; negative ones count from the last.

    Returns:
        (B, sum of channels, h, w) float32; coarser maps are upsampled bilinearly.

    Raises:
        UserError: the backbone does not return maps, or has no such stage.
    """
    maps = backbone(images)
    if not isinstance(maps, (tuple, list)) or any(m.ndim != 4 for m in maps):
        raise UserError(f"{type(backbone).__name__}: expected a tuple of stage maps (B, C, h, w), one a stage")
    if any(not -len(maps) <= stage < len(maps) for stage in stages):
        raise UserError(f"stages: this backbone has {len(maps)} (0 to {len(maps) - 1}), got {list(stages)}")
    chosen = [maps[stage].float() for stage in stages]
    grid = max((m.shape[-2:] for m in chosen), key=lambda size: size[0] * size[1])
    return torch.cat([_to_grid(m, grid) for m in chosen], 1)


def _to_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if maps.shape[-2:] == grid else F.interpolate(maps, grid, mode="bilinear", align_corners=False)


@torch.no_grad()
def map_sizes(backbone: nn.Module, input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each stage's map for a photo of `input_size`, which tells strides apart."""
    photo = torch.zeros(1, 3, *fitting(input_size, backbone), device=next(backbone.parameters()).device)
    return [tuple(stage.shape[-2:]) for stage in backbone.eval()(photo)]


@torch.no_grad()
def calibrate_batch_norm(
    backbone: nn.Module, photos: Sequence[Path], input_size: tuple[int, int], batch_size: int = 16
) -> None:
    """Set the running statistics of all BatchNorm layers, in place, to their means over unlabelled photos.

    The fair baseline of a random backbone: part of what pretraining seems to gain is statistics alone.

    Raises:
        UserError: there is no photo, or no BatchNorm layer.
    """
    layers = _batch_norms(backbone)
    if not photos or not layers:
        raise UserError(f"BN calibration: expected photos and BatchNorm layers, got {len(photos)} and {len(layers)}")
    size = fitting(input_size, backbone)
    resized = ((resize_image(photo, *size), index) for index, photo in read_photos(photos))
    with collecting_statistics(backbone):
        for number, (images, _) in enumerate(photo_batches(resized, batch_size)):
            if len(images) == batch_size or number == 0:  # a last, smaller one would count as much as the others
                backbone(images)


def _batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def collecting_statistics(model: nn.Module) -> Iterator[None]:
    """In the block, BatchNorm layers take their running statistics anew: means over the batches that they see.

    Those that a network otherwise keeps as they are (``norm_eval``) do so, too; nothing else changes its mode.
    """
    layers = _batch_norms(model)
    kept = [(layer, layer.momentum, layer.training) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    try:
        yield
    finally:
        for layer, momentum, training in kept:
            layer.momentum = momentum
            layer.train(training)


def add_counts(counts: np.ndarray, scores: Tensor, masks: Sequence[np.ndarray]) -> None:
    """Upsample scores (B, K, h, w) to each mask, take the largest, and add to the table (K, C) in place."""
    for score, mask in zip(scores, masks):
        counts += confusion_counts(pixel_owners(score, *mask.shape).cpu().numpy(), mask, *counts.shape)
