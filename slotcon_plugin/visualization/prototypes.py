"""What a prototype has learned: the segments of a data set that are nearest to it (as in the paper's figure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.models.grouping import pixel_owners
from slotcon_plugin.photos import printable, read_photo, read_photos
from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.grouped import run_grouping, shrunk
from slotcon_plugin.visualization.overlay import spotlight
from slotcon_plugin.visualization.sheet import INK, PAPER, below, beside, caption, fit_height, font

_MAX_SIDE = 480  # of a photo that is shown, in pixels
_ROW_HEIGHT = 150  # of a prototype's row, in pixels
_MIN_SHARE = 0.02  # of a photo's positions; smaller segments do not count


@dataclass(frozen=True)
class NearestSegments:
    """The nearest segments to each prototype, at most one of each photo.

    Attributes:
        similarity: cosine between slot and prototype, best first, ``(K, N)``; ``-inf`` where there is none.
        photo: index of the photo, ``(K, N)``; -1 where there is none.
        usage: number of photos in which the prototype owns at least 2 % of the positions, ``(K,)``.
        num_photos: how many photos were looked at.
    """

    similarity: Tensor
    photo: Tensor
    usage: Tensor
    num_photos: int

    def most_used(self, count: int) -> list[int]:
        """The prototypes found in most photos, best first; those never found are left out."""
        order = torch.argsort(self.usage, descending=True, stable=True)[:count].tolist()
        return [k for k in order if self.usage[k] > 0]


def find_nearest_segments(
    model: BasePretrainer, paths: Sequence[str | Path], count: int, short_side: int = 224
) -> NearestSegments:
    """Look at every photo once and keep the best of each prototype.

    Args:
        model: in evaluation mode, with prototypes; its teacher is asked.
        paths: of the photos.
        count: N, segments to keep a prototype.
        short_side: of what the model sees, in pixels.

    Raises:
        UserError: there is no photo, or not one can be read.
    """
    prototypes = F.normalize(model.prototypes().float(), dim=1).cpu()
    similarity = torch.full((len(prototypes), count), -torch.inf)
    photo = torch.full((len(prototypes), count), -1)
    usage = torch.zeros(len(prototypes), dtype=torch.int64)
    seen = 0
    for index, pixels in read_photos(paths):
        seen += 1
        grouping = run_grouping(model, pixels, short_side)
        owners = grouping.assignment_logits[0].argmax(dim=0).flatten().cpu()
        shares = torch.bincount(owners, minlength=len(prototypes)) / len(owners)
        found = shares >= _MIN_SHARE
        usage += found
        near = (F.normalize(grouping.slots[0].cpu(), dim=1) * prototypes).sum(dim=1)
        near[~found] = -torch.inf
        both = torch.cat([similarity, near[:, None]], dim=1)
        similarity, order = both.sort(dim=1, descending=True, stable=True)
        photo = torch.cat([photo, torch.where(found, index, -1)[:, None]], dim=1).gather(1, order)
        similarity, photo = similarity[:, :count], photo[:, :count]
    return NearestSegments(similarity, photo, usage, seen)


def segment_picture(
    model: BasePretrainer, path: str | Path, prototype: int, short_side: int = 224
) -> tuple[np.ndarray, np.ndarray]:
    """A photo with one prototype's segment in the light, ``(H, W, 3)`` uint8, and the segment, ``(H, W)`` bool."""
    photo = read_photo(path)
    logits = run_grouping(model, photo, short_side).assignment_logits[0]
    photo = shrunk(photo, _MAX_SIDE)
    mask = (pixel_owners(logits, *photo.shape[:2]) == prototype).cpu().numpy()
    return spotlight(photo, mask, prototype_colors(len(logits))[prototype]), mask


def prototype_row(
    model: BasePretrainer,
    paths: Sequence[str | Path],
    nearest: NearestSegments,
    prototype: int,
    short_side: int = 224,
) -> Image.Image:
    """One prototype: a swatch with its number, what it is used for, its nearest segments with their similarity."""
    tiles = []
    for value, index in zip(nearest.similarity[prototype].tolist(), nearest.photo[prototype].tolist()):
        if index >= 0:
            tile = fit_height(
                Image.fromarray(segment_picture(model, paths[index], prototype, short_side)[0]), _ROW_HEIGHT
            )
            tiles.append(below([tile, caption(f"{value:.2f}  {printable(Path(paths[index]).name)}", tile.width)], 0, 0))
    color = tuple(prototype_colors(len(nearest.usage))[prototype].tolist())
    used = nearest.usage[prototype].item() / nearest.num_photos
    text = f"prototype {prototype}\n" + (f"in {used:.0%} of\nphotos" if used else "in no photo")
    head = Image.new("RGB", (120, _ROW_HEIGHT), PAPER)
    ImageDraw.Draw(head).multiline_text((0, _ROW_HEIGHT // 2), text, fill=INK, font=font(), anchor="lm")
    return beside([Image.new("RGB", (12, _ROW_HEIGHT), color), head, *tiles])
