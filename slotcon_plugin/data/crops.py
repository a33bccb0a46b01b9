"""Two crops of one photo that overlap enough, by construction; or independent ones, for methods that need no overlap.

The distribution is the recipe's (SlotCon, arXiv 2205.15288; crops as torchvision's RandomResizedCrop): a first crop,
then further ones until one overlaps it enough. The reference gives up after ten tries and may return a pair without any
overlap; here the tries are bounded too, but what comes after them overlaps for certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from slotcon_plugin.errors import UserError

IntBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class CropPairSampler:
    """Draws pairs of crop boxes.

    Args:
        scale: range of a crop's share of the photo's area.
        ratio: range of a crop's width / height.
        min_overlap: least share of its own area that the second crop has in common with the first, in [0, 1];
            0 (without ``min_overlap_pixels``) draws the crops independently, so that they may share nothing.
        min_overlap_pixels: how many pixels of either view's ``overlap_grid`` x ``overlap_grid`` output have their
            centre inside the other view at least. Needed by methods that match pixels (VADeR: 32 of 56 x 56).
        overlap_grid: side of that output.
        max_tries: how often a second crop is drawn before one is constructed.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    min_overlap: float = 0.01
    min_overlap_pixels: int = 0
    overlap_grid: int = 56
    max_tries: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale must be a range within (0, 1], got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"ratio must be a range of positive width / height, got {self.ratio}")
        if not 0 <= self.min_overlap <= 1:
            raise UserError(f"min_overlap must be a share in [0, 1], got {self.min_overlap}")
        if not 0 <= self.min_overlap_pixels <= self.overlap_grid**2:
            raise UserError(
                f"min_overlap_pixels must lie in [0, {self.overlap_grid**2}] for an overlap_grid of "
                f"{self.overlap_grid}, got {self.min_overlap_pixels}"
            )

    def draw(self, rng: np.random.Generator, width: int, height: int) -> tuple[IntBox, IntBox]:
        """Two boxes (xyxy, whole pixels) in a photo of ``width`` x ``height`` that :meth:`accepts`."""
        first = self._draw_one(rng, width, height)
        for _ in range(self.max_tries):
            second = self._draw_one(rng, width, height)
            if self.accepts(first, second):
                return first, second
        second = _centred_on(first, second, width, height)
        # A second crop far larger than the first holds it and may still share too little of itself.
        return first, second if self.accepts(first, second) else first

    def accepts(self, first: tuple[float, ...], second: tuple[float, ...]) -> bool:
        """Whether ``second`` overlaps ``first`` enough."""
        if not self.min_overlap and not self.min_overlap_pixels:
            return True
        left, top = max(first[0], second[0]), max(first[1], second[1])
        right, bottom = min(first[2], second[2]), min(first[3], second[3])
        if left >= right or top >= bottom:
            return False
        width, height = second[2] - second[0], second[3] - second[1]
        if (right - left) * (bottom - top) < self.min_overlap * width * height:
            return False
        if not self.min_overlap_pixels:
            return True
        shared = left, top, right, bottom
        return all(
            _centres_inside(shared, box, self.overlap_grid) >= self.min_overlap_pixels for box in (first, second)
        )

    def _draw_one(self, rng: np.random.Generator, width: int, height: int) -> IntBox:
        """One crop as torchvision's RandomResizedCrop draws it."""
        log_ratio = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            u_area, u_ratio, u_left, u_top = rng.random(4).tolist()
            area = width * height * (self.scale[0] + u_area * (self.scale[1] - self.scale[0]))
            ratio = math.exp(log_ratio[0] + u_ratio * (log_ratio[1] - log_ratio[0]))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(u_left * (width - w + 1)), int(u_top * (height - h + 1))
                return left, top, left + w, top + h
        # So long a photo has no room for such a crop: the largest central one.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def _centred_on(first: IntBox, second: IntBox, width: int, height: int) -> IntBox:
    """``second`` moved over the middle of ``first``, as far as the photo allows."""
    w, h = second[2] - second[0], second[3] - second[1]
    left = min(max((first[0] + first[2] - w) // 2, 0), width - w)
    top = min(max((first[1] + first[3] - h) // 2, 0), height - h)
    return left, top, left + w, top + h


def _centres_inside(shared: tuple[float, ...], box: tuple[float, ...], grid: int) -> int:
    """How many pixel centres of a view's ``grid`` x ``grid`` output lie in a part of it."""
    (left, top, right, bottom), (width, height) = shared, (box[2] - box[0], box[3] - box[1])
    columns = _centres_between((left - box[0]) / width, (right - box[0]) / width, grid)
    return columns * _centres_between((top - box[1]) / height, (bottom - box[1]) / height, grid)


def _centres_between(low: float, high: float, grid: int) -> int:
    """How many of the centres (i + .5) / grid lie in [low, high]."""
    return math.floor(high * grid - 0.5) - math.ceil(low * grid - 0.5) + 1
