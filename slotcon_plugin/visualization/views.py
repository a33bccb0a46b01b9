"""The two views of a photo and what they share: a check of the geometry by eye."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.ops import box_iou

from slotcon_plugin.data import SampleKey, TwoViewDataset
from slotcon_plugin.data.photometric import apply_photometric
from slotcon_plugin.geometry import align_to_overlap, overlap_boxes
from slotcon_plugin.photos import printable, read_photo
from slotcon_plugin.visualization.sheet import below, beside, caption, fit_height, fitted_size

_FIRST, _SECOND, _SHARED = (230, 75, 53), (0, 130, 200), (255, 215, 0)
_TILES = 6
_HEIGHT = 224  # of the pictures, in pixels


def views_sheet(dataset: TwoViewDataset, keys: Iterable[SampleKey], augment: bool = True) -> Image.Image:
    """A row for each sample, see :func:`views_row`."""
    return below([views_row(dataset, key, augment) for key in keys])


def views_row(dataset: TwoViewDataset, key: SampleKey, augment: bool = True) -> Image.Image:
    """A sample as it is trained on.

    From left to right: the photo with both crops; the two views with the region that both show outlined in yellow; that
    region of each view after the inverse augmentation; and alternate tiles of the latter two, whose edges meet where
    the geometry is right. Crops that were drawn independently may share nothing; then the row ends after the views.

    Args:
        dataset: of two views.
        key: of the sample.
        augment: with the photometric augmentation.
    """
    sample = dataset[key]
    index = int(sample["sample_index"])
    pixels = sample["views"].float() / 255  # (2, 3, S, S)
    if augment:
        pixels = apply_photometric(pixels, sample["photometric"])
    photo = Image.fromarray(read_photo(dataset.source.path(index)))
    scale = np.divide(fitted_size(*photo.size, _HEIGHT), photo.size)
    boxes = sample["crop_boxes"].numpy() * np.tile(scale, 2)
    photo = _outlined(fit_height(photo, _HEIGHT), boxes, (_FIRST, _SECOND))
    pictures = [photo, *(fit_height(_picture(view), _HEIGHT) for view in pixels)]
    if box_iou(*sample["crop_boxes"][:, None]).item() > 0:
        shared = overlap_boxes(sample["crop_boxes"][None], sample["flipped"][None])[0]
        for picture, box in zip(pictures[1:], shared):
            _outlined(picture, box.numpy()[None] * _HEIGHT, (_SHARED,))
        aligned = align_to_overlap(pixels, shared, sample["flipped"])
        tile = (torch.arange(aligned.shape[-1]) * _TILES // aligned.shape[-1]) % 2
        mixed = torch.where((tile[:, None] == tile)[None], aligned[0], aligned[1])
        pictures += [fit_height(_picture(maps), _HEIGHT) for maps in (*aligned, mixed)]
    first, second = (" (flipped)" if flip else "" for flip in sample["flipped"].tolist())
    name = printable(os.path.basename(dataset.source.path(index)))
    notes = (
        name,
        f"view 1, red{first}",
        f"view 2, blue{second}",
        "shared, from view 1",
        "shared, from view 2",
        "tiles of both",
    )
    return beside([below([caption(note, p.width), p], gap=0, margin=0) for note, p in zip(notes, pictures)])


def _picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) float in [0, 1] -> picture."""
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _outlined(picture: Image.Image, boxes: np.ndarray, colors: tuple[tuple[int, int, int], ...]) -> Image.Image:
    """Draw boxes (N, 4), xyxy in pixels of the picture."""
    draw = ImageDraw.Draw(picture)
    for (left, top, right, bottom), color in zip(boxes.tolist(), colors):
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=3)
    return picture
