"""Photos with an index mask each: the one form in which evaluations see any dataset.

A reader (see `readers.py`) lists the pairs of files and says what the values of a mask mean; nothing is decoded before
an item is asked for, and every complaint names the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.metrics import IGNORE
from slotcon_plugin.photos import PhotoError, evenly_spaced, read_photo, require_whole, upright_size

FOREIGN = -1  # a value in a mask that no class has


class LabelledImage(NamedTuple):
    """`image` (H, W, 3) uint8 RGB; `label` (H, W) uint8, index of a class or `IGNORE`."""

    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class LabelledSet:
    """Photos and masks of one split.

    Attributes:
        name: for messages and result files, such as "camvid/test".
        items: (photo, mask) paths.
        classes: names, in the order of the class indices.
        table: (256,) int16, what a value stored in a mask means: class index, `IGNORE`, or `FOREIGN` (an error).
        square: if set, photo and mask are resized so that their short side is `square` and cut to the middle square
            (PiCIE's protocol).
    """

    name: str
    items: tuple[tuple[Path, Path], ...]
    classes: tuple[str, ...]
    table: np.ndarray
    square: int | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def task(self) -> str:
        """The name as tasks of result files have it: one word, without what a reader adds in brackets."""
        return re.sub(r"[\s/]+", "_", re.sub(r" \([^()]*\)$", "", self.name))

    def subset(self, limit: int | None) -> LabelledSet:
        """At most `limit` items, spread evenly over the list; all of them for None."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UserError(f"limit: expected at least 1 photo, got {limit}")
        return replace(self, items=tuple(self.items[i] for i in evenly_spaced(len(self), limit)))

    def read(self, index: int) -> LabelledImage:
        """Decode one item.

        Raises:
            UserError: a file cannot be read, the sizes differ, or the mask holds a value without a meaning.
        """
        image = read_photo(self.items[index][0])
        label = self._label(index, *image.shape[1::-1])
        return LabelledImage(image, label) if self.square is None else _middle_square(image, label, self.square)

    def read_label(self, index: int) -> np.ndarray:
        """Decode the mask alone, (H, W) uint8 as stored; raises as :meth:`read` does."""
        return self._label(index, *upright_size(self.items[index][0]))

    def check(self) -> set[int]:
        """Decode every mask, so that faults are found before time is spent; returns the class indices that occur.

        Of the photos it finds those that are cut short.

        Raises:
            UserError: see :meth:`read`.
        """
        screen, counts = Console(stderr=True), np.zeros(IGNORE + 1, np.int64)
        indices, told = range(len(self)), f"masks of {self.name}"
        for index in track(indices, told, console=screen, transient=True, disable=not screen.is_terminal):
            self._require_whole_photo(index)
            counts += np.bincount(self.read_label(index).ravel(), minlength=len(counts))
        return {*np.flatnonzero(counts[:IGNORE]).tolist()}

    def _require_whole_photo(self, index: int) -> None:
        try:
            require_whole(self.items[index][0])
        except PhotoError as error:
            raise UserError(f"{error}. Copy it anew, or take it and its mask out") from error

    def _label(self, index: int, width: int, height: int) -> np.ndarray:
        photo, mask = self.items[index]
        stored = _read_mask(mask)
        if stored.shape != (height, width):
            expected = f"{width}x{height} as {photo.name}"
            raise UserError(f"{mask}: mask of wrong size: expected {expected}, got {stored.shape[1]}x{stored.shape[0]}")
        label = self.table[stored]
        if (label == FOREIGN).any():
            unknown = ", ".join(map(str, np.unique(stored[label == FOREIGN])[:8]))
            known = _ranges(np.flatnonzero(self.table != FOREIGN))
            raise UserError(f"{mask}: unknown class index {unknown}: expected {known} ({len(self.classes)} classes)")
        return label.astype(np.uint8)


def too_few_classes(name: str, found: Sequence[str | int]) -> UserError:
    """The error for masks in which fewer than two classes were found: any score on them would be meaningless."""
    if not found:
        return UserError(f"{name}: every pixel of every mask is 255 (ignored)")
    return UserError(
        f"{name}: the masks hold one class only ({found[0]}; 255 is ignored): expected two or more. Of masks of 0 and "
        "255, store the object as 1"
    )


def _ranges(values: np.ndarray) -> str:
    """[0, 1, 2, 255] -> "0-2, 255"."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _read_mask(path: Path) -> np.ndarray:
    """Stored indices (H, W) uint8; a palette image gives its indices, not its colours."""
    try:
        with Image.open(path) as file:
            mode, mask = file.mode, np.asarray(file)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a broken PNG a syntax error
        raise UserError(f"{path}: cannot be read as a mask: {error}") from error
    if mask.ndim != 2:
        raise UserError(f"{path}: expected a mask of class indices (8-bit grey or palette), got mode {mode!r}")
    if mask.dtype != np.uint8:
        mask = mask.astype(np.int64)
        if mask.size and not 0 <= mask.min() <= mask.max() <= IGNORE:
            raise UserError(f"{path}: expected class indices 0 to 255, got {mask.min()} to {mask.max()}")
    return mask.astype(np.uint8)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize RGB (H, W, 3); averages when it shrinks, so that fine texture does not alias."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_label(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an index map (H, W) by nearest pixel."""
    # Pillow's; OpenCV's INTER_NEAREST_EXACT is the same today, but was not in 4.6
    return np.array(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))


def _middle_square(image: np.ndarray, label: np.ndarray, side: int) -> LabelledImage:
    """PiCIE's geometry: short side to `side` (the long one cut to whole pixels), then the middle square."""
    height, width = label.shape
    short = min(height, width)
    new_height, new_width = int(side * height / short), int(side * width / short)
    # bilinear without averaging is not what PIL does: PIL's BILINEAR averages when it shrinks, and PiCIE uses PIL
    small = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    small_label = np.asarray(Image.fromarray(label).resize((new_width, new_height), Image.Resampling.NEAREST))
    top, left = round((new_height - side) / 2), round((new_width - side) / 2)
    box = np.s_[top : top + side, left : left + side]
    return LabelledImage(small[box], small_label[box])
