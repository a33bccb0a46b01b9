"""Where the two views lie in their photo, in each other, and in one common grid.

Frames and conventions, defined once for the whole package:

* All boxes are ``xyxy`` in continuous coordinates: pixel ``i`` covers ``[i, i + 1]`` and is centred at ``i + 0.5``.
* ``crop_box``: where a view was cut out of its photo, in pixels of the full-size, upright photo ("source").
* ``flipped``: whether the view was mirrored left to right after it was cut out.
* ``overlap_box``: the part of a view that the other view sees too, in [0, 1] of that view's own frame AFTER its flip.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TwoViewBatch(NamedTuple):
    """Two views of each of B photos: what a pretrainer's ``loss`` gets.

    A named tuple, so that what moves, pins or traces tensors (torch, DDP, mmengine) sees into it.

    Attributes:
        views: first and second view, each ``(B, 3, S, S)`` float, normalised.
        crop_boxes: ``(B, 2, 4)`` xyxy in source pixels.
        flipped: ``(B, 2)`` bool.
        sample_index: ``(B,)`` int64, which photo of the source both views are of.
    """

    views: tuple[Tensor, Tensor]
    crop_boxes: Tensor
    flipped: Tensor
    sample_index: Tensor


def overlap_boxes(crop_boxes: Tensor, flipped: Tensor) -> Tensor:
    """The region that both views of a pair see, in the frame of each.

    Args:
        crop_boxes: (B, 2, 4) xyxy in source pixels, one box a view.
        flipped: (B, 2) bool.

    Returns:
        (B, 2, 4) xyxy in [0, 1] of each view's own frame, after its flip.

    Raises:
        ValueError: if a pair does not overlap. On an accelerator the check is a device-side assertion instead, because
            reading its outcome would make every training step wait for the device.
    """
    if crop_boxes.shape[-2:] != (2, 4) or flipped.shape != crop_boxes.shape[:-1]:
        raise ValueError(
            f"overlap_boxes expects crop_boxes (B, 2, 4) and flipped (B, 2), got {tuple(crop_boxes.shape)} and "
            f"{tuple(flipped.shape)}"
        )
    shared = torch.cat(
        [crop_boxes[..., :2].amax(-2, keepdim=True), crop_boxes[..., 2:].amin(-2, keepdim=True)], dim=-1
    )  # (B, 1, 4)
    _require_positive_area(shared[..., 0, :])
    origin = crop_boxes[..., :2].repeat(1, 1, 2)
    size = (crop_boxes[..., 2:] - crop_boxes[..., :2]).repeat(1, 1, 2)
    boxes = ((shared - origin) / size).clamp(0, 1)
    mirrored = torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], dim=-1)
    return torch.where(flipped[..., None], mirrored, boxes)


def align_to_overlap(maps: Tensor, overlap_box: Tensor, flipped: Tensor) -> Tensor:
    """Resample one view's maps on the grid of the overlap ("inverse augmentation": RoIAlign, then un-flip).

    Applied to both views of a pair, position (i, j) of the two results shows the same place of the photo. A box within
    the map has less than a pixel for each of the map's: RoIAlign takes one bilinear sample, and that is separable.
    As products of matrices, its gradient is many times as fast as torchvision's on a CPU, and the same in every run on
    a GPU.

    Args:
        maps: (B, C, H, W) in the view's frame.
        overlap_box: (B, 4) of that view, xyxy in [0, 1], see :func:`overlap_boxes`.
        flipped: (B,) bool of that view.

    Returns:
        (B, C, H, W), dtype of ``maps``.
    """
    batch, _, height, width = maps.shape
    if overlap_box.shape != (batch, 4) or flipped.shape != (batch,):
        raise ValueError(
            f"align_to_overlap expects overlap_box ({batch}, 4) and flipped ({batch},) for maps {tuple(maps.shape)}, "
            f"got {tuple(overlap_box.shape)} and {tuple(flipped.shape)}"
        )
    # Half precision cannot place a box on a fine grid, so the boxes and the resampling are fp32.
    with torch.autocast(maps.device.type, enabled=False):
        left, top, right, bottom = overlap_box.float().unbind(1)
        rows = _bilinear(top, bottom, height)
        columns = _bilinear(left.where(~flipped, right), right.where(~flipped, left), width)
        return torch.einsum("biy,bcyx,bjx->bcij", rows, maps.float(), columns).to(maps.dtype)


def _bilinear(first: Tensor, last: Tensor, size: int) -> Tensor:
    """What each pixel of a row of ``size`` counts at the centres of ``size`` bins between two places.

    Args:
        first, last: (B,) where the bins begin and end, in [0, 1] of the row; backwards, if first > last.

    Returns:
        (B, size, size) float32, bins by pixels; outside the outermost pixels' centres these alone count.
    """
    pixel = torch.arange(size, device=first.device)
    place = first[:, None] + (pixel + 0.5) / size * (last - first)[:, None]
    place = (place * size - 0.5).clamp(0, size - 1)
    return (1 - (place[..., None] - pixel).abs()).clamp(min=0)


def view_to_source(points: Tensor, crop_box: Tensor, flipped: Tensor) -> Tensor:
    """Points of a view in its photo.

    Args:
        points: (B, N, 2) xy in [0, 1] of the view's frame, after its flip.
        crop_box: (B, 4) xyxy in source pixels.
        flipped: (B,) bool.

    Returns:
        (B, N, 2) xy in source pixels.
    """
    return crop_box[:, None, :2] + _mirror(points, flipped) * (crop_box[:, None, 2:] - crop_box[:, None, :2])


def source_to_view(points: Tensor, crop_box: Tensor, flipped: Tensor) -> Tensor:
    """Inverse of :func:`view_to_source`; a point that the view does not see falls outside [0, 1].

    Args:
        points: (B, N, 2) xy in source pixels.
        crop_box: (B, 4) xyxy in source pixels.
        flipped: (B,) bool.

    Returns:
        (B, N, 2) xy in the view's frame, after its flip.
    """
    relative = (points - crop_box[:, None, :2]) / (crop_box[:, None, 2:] - crop_box[:, None, :2])
    return _mirror(relative, flipped)


def _mirror(points: Tensor, flipped: Tensor) -> Tensor:
    """Mirror x about the middle of the view where ``flipped``; its own inverse."""
    x = torch.where(flipped[:, None], 1 - points[..., 0], points[..., 0])
    return torch.stack([x, points[..., 1]], dim=-1)


def _require_positive_area(boxes: Tensor) -> None:
    """Raise where a box (B, 4) has no width or no height."""
    valid = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    if boxes.is_cuda:
        torch._assert_async(valid.all(), "the two views of a sample do not overlap: set min_overlap in the dataset")
    elif not valid.all():
        wrong = (~valid).nonzero().flatten().tolist()
        raise ValueError(
            f"the two views of samples {wrong} of the batch do not overlap (shared boxes xyxy "
            f"{boxes[wrong].tolist()}); views must come from a transform that guarantees an overlap"
        )
