"""Two augmented views of each unlabelled photo, with their geometry."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import Dataset

from slotcon_plugin.data.crops import CropPairSampler, IntBox
from slotcon_plugin.data.keys import SampleKey
from slotcon_plugin.data.photometric import RECIPE, PhotometricConfig, draw_photometric
from slotcon_plugin.data.sources import ConcatSources, PhotoSource, build_source
from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import Orientation, Photo, PhotoError, printable
from slotcon_plugin.registry import DATASETS

# What is wrong with a photo, not with the run.
_UNREADABLE = (PhotoError, OSError, MemoryError)
# So many unreadable photos in a row are no bad luck.
_MAX_REPLACEMENTS = 16
_MOST_NAMED = 10  # broken photos in a message


class BrokenPhotosError(UserError):
    """Too many photos of a source cannot be read."""

    def __str__(self) -> str:
        # A DataLoader puts its worker's traceback in front of what was raised there.
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2].rstrip()


@DATASETS.register_module()
class TwoViewDataset(Dataset):
    """Decodes a photo, cuts two overlapping crops out of it, resizes and flips them.

    Colour is left to :class:`~slotcon_plugin.data.preprocessor.TwoViewPreprocessor`, on the training device; its
    parameters are drawn here. Everything random about a sample follows from its :class:`SampleKey`.

    Args:
        source: an image source or its config (``ImageFolder``, ``ListFile``, ``CocoImages``, ``ConcatSources``).
        view_size: side of the square views, in pixels.
        scale: range of a crop's share of the photo's area.
        ratio: range of a crop's width / height.
        min_overlap: least share of its OWN area that the second crop has in common with the first; 0 = independent.
        min_overlap_pixels: pixels of either view's ``overlap_grid`` x ``overlap_grid`` output whose centres the
            other view sees too, at least.
        overlap_grid: side of that output; None = a quarter of ``view_size``, rounded up: a map of stride 4, as VADeR's.
        flip_prob: probability that a view is mirrored left to right.
        photometric: strengths of the photometric augmentation of the first and of the second view.
        max_broken_share: share of the source's photos that may be unreadable (each is replaced by another photo and
            named once in the log) before the run is stopped; of several processes each counts in the share of the
            photos that it has met.
        keep_damaged: use JPEGs that libjpeg warns about; by default they count as unreadable.

    A sample is a dict, B samples collate by adding a leading B:
        views: (2, 3, S, S) uint8 RGB.
        crop_boxes: (2, 4) float32 xyxy, exactly what was sampled, in pixels of the full-size upright photo.
        flipped: (2,) bool.
        photometric: (2, P) float32, see :func:`~slotcon_plugin.data.photometric.draw_photometric`.
        sample_index: () int64, index of the photo in the source (of the replacement, where there was one).
    """

    def __init__(
        self,
        source: PhotoSource | ConcatSources | dict,
        view_size: int = 224,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        min_overlap: float = 0.01,
        min_overlap_pixels: int = 0,
        overlap_grid: int | None = None,
        flip_prob: float = 0.5,
        photometric: Sequence[PhotometricConfig | dict] = RECIPE,
        max_broken_share: float = 0.05,
        keep_damaged: bool = False,
    ) -> None:
        if view_size < 1:
            raise UserError(f"view_size must be at least 1 pixel, got {view_size}")
        if len(photometric) != 2:
            raise UserError(f"photometric needs two configs, for the first and the second view, got {photometric}")
        self.source = build_source(source)
        self.view_size = view_size
        overlap_grid = math.ceil(view_size / 4) if overlap_grid is None else overlap_grid
        self.crops = CropPairSampler(tuple(scale), tuple(ratio), min_overlap, min_overlap_pixels, overlap_grid)
        self.flip_prob = flip_prob
        self.photometric = tuple(map(PhotometricConfig.of, photometric))
        self.max_broken_share = max_broken_share
        self.keep_damaged = keep_damaged
        self._processes = get_world_size()
        # In shared memory: each worker sees what the others have found.
        self._broken = torch.zeros(len(self.source), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_broken(self) -> int:
        """How many photos have turned out unreadable so far, in all workers of this process."""
        return int(self._broken.sum())

    def __getitem__(self, key: SampleKey | int) -> dict[str, Tensor]:
        """The sample of a key; a bare index stands for seed 0, epoch 0.

        Raises:
            BrokenPhotosError: if more photos cannot be read than ``max_broken_share`` allows.
        """
        key = SampleKey(*key) if isinstance(key, tuple) else SampleKey(seed=0, epoch=0, index=int(key))
        try:
            return self._sample(key, key.index)
        except _UNREADABLE as error:
            self._report_broken(key.index, error, key.epoch)
        # Which photo stands in depends on the key alone, not on what has been found broken before.
        for index in key.rng(stream=1).integers(len(self), size=_MAX_REPLACEMENTS).tolist():
            try:
                return self._sample(key, index)
            except _UNREADABLE as error:
                self._report_broken(index, error, key.epoch)
        raise BrokenPhotosError(
            f"{_MAX_REPLACEMENTS} photos in a row of {self.source.origin} cannot be read, {self._some_broken()}; check "
            "that the source names photos"
        )

    def _sample(self, key: SampleKey, index: int) -> dict[str, Tensor]:
        photo = Photo(self._read(index), printable(self.source.path(index)))
        rng = key.rng()
        pair = self.crops.draw(rng, photo.orientation.width, photo.orientation.height)
        reduction, placed = self._place(photo, pair)
        pixels = photo.decode(reduction, self.keep_damaged)
        flips = rng.random(2) < self.flip_prob
        views = torch.empty(2, 3, self.view_size, self.view_size, dtype=torch.uint8)
        for view, box, flip in zip(views, placed, flips.tolist()):
            view.copy_(_upright(resize_crop(pixels, box, self.view_size), photo.orientation, flip))
        boxes = [_in_source(photo, box, reduction) for box in placed]
        return dict(
            views=views,
            crop_boxes=torch.tensor(boxes, dtype=torch.float32),
            flipped=torch.from_numpy(flips),
            photometric=torch.from_numpy(np.stack([draw_photometric(rng, config) for config in self.photometric])),
            sample_index=torch.tensor(index),
        )

    def _read(self, index: int) -> bytes:
        try:
            return self.source.read(index)
        except _UNREADABLE:
            raise
        except Exception as error:  # archives and data bases raise what they please
            raise PhotoError(f"{type(error).__name__}: {error}") from error

    def _place(self, photo: Photo, pair: tuple[IntBox, IntBox]) -> tuple[int, list[IntBox]]:
        """How far the decoder may shrink the photo, and the crops in whole pixels of what it then gives.

        Shrinking rounds the crops to its grid; the largest reduction is taken at which both crops still have a pixel
        for each of the view's and still overlap enough.
        """
        stored = [photo.orientation.to_stored(box) for box in pair]
        smallest = min(min(box[2] - box[0], box[3] - box[1]) for box in stored)
        for reduction in photo.reductions[:-1]:
            # One pixel in reserve for the rounding.
            if smallest >= reduction * (self.view_size + 1):
                limits = [side // reduction for side in photo.stored_size] * 2
                placed = [tuple(min(round(x / reduction), end) for x, end in zip(box, limits)) for box in stored]
                if self.crops.accepts(*(_in_source(photo, box, reduction) for box in placed)):
                    return reduction, placed
        return 1, stored

    def _report_broken(self, index: int, error: Exception, epoch: int) -> None:
        """Name a broken photo the first time, and stop when there are too many."""
        if not self._broken[index]:
            self._broken[index] = True
            name = printable(self.source.path(index))
            print_log(f"photo replaced by another: {name}: {error}", "current", logging.WARNING)
        # Of several processes each meets a share of every epoch, and chance deals the broken ones out unevenly.
        met = min(len(self), -(-len(self) * (epoch + 1) // self._processes))
        allowed = self.max_broken_share * met
        if self._processes > 1:
            allowed += 1 + 2 * math.sqrt(allowed)
        if self.num_broken > allowed:
            raise BrokenPhotosError(
                f"{self.num_broken} of {met} photos of {self.source.origin} cannot be read, more than "
                f"max_broken_share={self.max_broken_share} of them: {self._some_broken()}. Repair or remove these "
                "files, or raise max_broken_share of the dataset"
            )

    def _some_broken(self) -> str:
        # nonzero() counts, allocates, then writes: while other workers set flags, it would write past its memory
        broken = self._broken.clone().nonzero().flatten()
        names = ", ".join(printable(self.source.path(index)) for index in broken[:_MOST_NAMED].tolist())
        return names + (f" and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else "")


def _in_source(photo: Photo, box: IntBox, reduction: int) -> IntBox:
    """A box of the decoder's pixels in those of the full-size upright photo."""
    return photo.orientation.to_upright(tuple(reduction * side for side in box))


def resize_crop(pixels: np.ndarray, box: IntBox, size: int) -> Tensor:
    """Cut a box of whole pixels out and resize it, bicubic with antialiasing as Pillow does it.

    Args:
        pixels: (H, W, 3) uint8.
        box: xyxy.
        size: side of the result.

    Returns:
        (3, size, size) uint8.
    """
    crop = torch.from_numpy(pixels[box[1] : box[3], box[0] : box[2]]).permute(2, 0, 1)[None]
    return F.interpolate(crop, (size, size), mode="bicubic", antialias=True)[0]


def _upright(view: Tensor, orientation: Orientation, flip: bool) -> Tensor:
    """Turn a (3, S, S) view as the photo must be turned, then mirror it if ``flip``."""
    if orientation.transpose:
        view = view.mT
    axes = [-1] * (orientation.mirror_x != flip) + [-2] * orientation.mirror_y
    return view.flip(axes) if axes else view
