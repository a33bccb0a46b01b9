"""Which position of one view looks most like which of the other (DenseCL, arXiv 2011.09157, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def most_similar_pixels(first: Tensor, second: Tensor) -> Tensor:
    """For each position of the first map the position of the second with the largest cosine similarity (eq. 4).

    Args:
        first: ``(B, C, h, w)``.
        second: ``(B, C, h', w')`` of the other view of the same images.

    Returns:
        ``(B, h * w)`` int64 in [0, h' * w'), both counted row by row; of equal ones any.
    """
    with torch.autocast(first.device.type, enabled=False):
        queries, keys = (F.normalize(maps.float().flatten(2), dim=1) for maps in (first, second))
        return torch.einsum("bcn,bcm->bnm", queries, keys).argmax(dim=2)
