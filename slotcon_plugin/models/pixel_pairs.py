"""Which pixel of one view shows the same scene point as which place of the other, and the features there.

Exact, in continuous coordinates: pixel ``i`` of a map with ``n`` pixels a side is centred at ``(i + 0.5) / n`` of the
view, points are xy in [0, 1] of a view's frame after its flip.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slotcon_plugin.geometry import source_to_view, view_to_source

# How far outside a view a point may lie, as a share of its side: float32 boxes round a point on the edge by as much.
_EDGE_TOLERANCE = 1e-4

INTERPOLATIONS = ("bilinear", "nearest")


class PixelPairs(NamedTuple):
    """P pairs of matching places of each of B images.

    Attributes:
        index: pixels of the first view's map, row by row, ``(B, P)`` int64 in [0, H * W).
        points: where the second view shows their centres, ``(B, P, 2)`` xy in [0, 1].
    """

    index: Tensor
    points: Tensor


def pixel_centres(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Centres of a map's pixels, row by row: ``(H * W, 2)`` xy in [0, 1]."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)


def corresponding_points(points: Tensor, crop_boxes: Tensor, flipped: Tensor) -> Tensor:
    """Where the second view shows points of the first.

    Args:
        points: ``(B, N, 2)`` xy in [0, 1] of the first view.
        crop_boxes: ``(B, 2, 4)`` xyxy in source pixels.
        flipped: ``(B, 2)`` bool.

    Returns:
        ``(B, N, 2)`` xy of the second view; outside [0, 1] where it does not show the point.
    """
    source = view_to_source(points, crop_boxes[:, 0], flipped[:, 0])
    return source_to_view(source, crop_boxes[:, 1], flipped[:, 1])


def sample_pairs(crop_boxes: Tensor, flipped: Tensor, size: tuple[int, int], num_pairs: int) -> PixelPairs:
    """Draw pixels of the first view whose centres the second view shows, uniformly and without replacement.

    Args:
        crop_boxes: ``(B, 2, 4)`` xyxy in source pixels.
        flipped: ``(B, 2)`` bool.
        size: (height, width) of the first view's map.
        num_pairs: P.

    Raises:
        ValueError: a pair of views shares fewer than P pixels. On an accelerator the check is a device-side assertion
            instead, because reading its outcome would make every step wait for the device.
    """
    height, width = size
    if not 1 <= num_pairs <= height * width:
        raise ValueError(f"sample_pairs: num_pairs must be in [1, {height * width}] on a {size} map, got {num_pairs}")
    centres = pixel_centres(height, width, crop_boxes.device).expand(len(crop_boxes), -1, -1)
    points = corresponding_points(centres, crop_boxes, flipped)  # (B, H*W, 2)
    shown = ((points >= -_EDGE_TOLERANCE) & (points <= 1 + _EDGE_TOLERANCE)).all(dim=-1)
    _require_shared_pixels(shown, num_pairs, size)
    # The largest of independent uniform numbers are a uniform draw without replacement.
    index = torch.rand(shown.shape, device=shown.device).masked_fill(~shown, -1.0).topk(num_pairs, dim=1).indices
    return PixelPairs(index, points.gather(1, index[..., None].expand(-1, -1, 2)))


def take_pixels(maps: Tensor, index: Tensor) -> Tensor:
    """Features of whole pixels: ``(B, D, H, W)`` and ``(B, P)`` row-by-row indices -> ``(B, P, D)``."""
    flat = maps.flatten(2)  # (B, D, H*W)
    return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def sample_points(maps: Tensor, points: Tensor, interpolation: str = "bilinear") -> Tensor:
    """Features at continuous places.

    Args:
        maps: ``(B, D, H, W)``.
        points: ``(B, P, 2)`` xy in [0, 1]; within half a pixel of the border the border's pixels are repeated.
        interpolation: ``'bilinear'`` at the exact place, or the ``'nearest'`` pixel.

    Returns:
        ``(B, P, D)`` float32.

    Raises:
        ValueError: unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}")
    grid = points[:, :, None].float() * 2 - 1  # (B, P, 1, 2), the convention of grid_sample
    sampled = F.grid_sample(maps.float(), grid, interpolation, padding_mode="border", align_corners=False)
    return sampled.squeeze(-1).transpose(1, 2)


def _require_shared_pixels(shown: Tensor, num_pairs: int, size: tuple[int, int]) -> None:
    counts = shown.sum(dim=1)
    enough = (counts >= num_pairs).all()
    cure = f"set min_overlap_pixels={num_pairs} and overlap_grid={size[0]} in the TwoViewDataset"
    if shown.is_cuda:
        torch._assert_async(enough, f"views share fewer than {num_pairs} pixels of their output: {cure}")
    elif not enough:
        raise ValueError(
            f"views must share {num_pairs} pixels of the {size[0]} x {size[1]} output, these share {counts.tolist()}; "
            + cure
        )
