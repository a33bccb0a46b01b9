"""Photos from the disk, grouped by a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from slotcon_plugin.models import BasePretrainer, Grouping
from slotcon_plugin.models.grouping import pixel_owners
from slotcon_plugin.models.timm_backbone import even_sides
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD
from slotcon_plugin.photos import network_sides, printable, read_photos


@dataclass(frozen=True)
class GroupedPhoto:
    """A photo and its segments.

    Attributes:
        name: file name, in one line.
        photo: ``(H, W, 3)`` uint8 RGB, upright, at the size at which it is shown.
        owners: ``(H, W)``, the prototype of each pixel.
        num_prototypes: K.
    """

    name: str
    photo: np.ndarray
    owners: np.ndarray
    num_prototypes: int

    def shares(self) -> np.ndarray:
        """Share of the photo's area that each prototype owns, ``(K,)``, sums to 1."""
        return np.bincount(self.owners.ravel(), minlength=self.num_prototypes) / self.owners.size


def model_input(photo: np.ndarray, short_side: int, model: BasePretrainer) -> Tensor:
    """A photo ``(H, W, 3)`` uint8 as the model wants it, ``(1, 3, h, w)`` normalised.

    The shorter side becomes ``short_side``; both are rounded to multiples of 32, or of a ViT's patches where 32
    is none.
    """
    size = network_sides(*photo.shape[:2], short_side, even_sides(model))
    small = np.array(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
    mean = getattr(model.data_preprocessor, "mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
    std = getattr(model.data_preprocessor, "std", torch.tensor(IMAGENET_STD)[:, None, None])
    return (pixels.to(mean.device) - mean) / std


@torch.no_grad()
def run_grouping(model: BasePretrainer, photo: np.ndarray, short_side: int, branch: str = "teacher") -> Grouping:
    """The grouping of one photo, of a batch of one."""
    device = next(model.parameters()).device
    return model.group(model_input(photo, short_side, model).to(device), branch)


def shrunk(photo: np.ndarray, max_side: int) -> np.ndarray:
    """A photo ``(H, W, 3)`` uint8 for a picture: its longer side at most ``max_side`` pixels."""
    if max(photo.shape[:2]) <= max_side:
        return photo
    small = Image.fromarray(photo)
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.array(small)


def group_photos(
    model: BasePretrainer,
    paths: Sequence[str | Path],
    short_side: int = 320,
    max_side: int = 640,
    branch: str = "teacher",
) -> list[GroupedPhoto]:
    """Group those of the photos that can be read; the model sees each as it is in its file, not as it is shown.

    Args:
        model: in evaluation mode, with prototypes.
        paths: of the photos.
        short_side: of what the model sees, in pixels; larger makes finer segments.
        max_side: of the picture that is shown, in pixels.
        branch: ``'teacher'`` or ``'student'``.

    Raises:
        UserError: not one of them can be read.
    """
    grouped = []
    for index, photo in read_photos(paths):
        logits = run_grouping(model, photo, short_side, branch).assignment_logits[0]
        shown = shrunk(photo, max_side)
        owners = pixel_owners(logits, *shown.shape[:2]).cpu().numpy()
        grouped.append(GroupedPhoto(printable(Path(paths[index]).name), shown, owners, len(logits)))
    return grouped
