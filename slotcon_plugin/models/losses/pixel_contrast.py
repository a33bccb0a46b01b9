"""Contrast between single pixels of two views and pixels of other images (VADeR, arXiv 2011.05499, eq. 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PixelSimilarities(NamedTuple):
    """Cosine similarities in [-1, 1], float32.

    Attributes:
        positive: of each query to its own key, ``(B, P)``.
        negative: of each query to each negative, ``(B, P, M)``; ``-inf`` where the negative does not count.
    """

    positive: Tensor
    negative: Tensor


def pixel_similarities(
    queries: Tensor, positives: Tensor, negatives: Tensor, excluded: Tensor | None = None
) -> PixelSimilarities:
    """How close each query is to its positive and to all negatives.

    Args:
        queries: P student pixels of each of B images, ``(B, P, D)``.
        positives: the teacher's pixel of the same scene point, ``(B, P, D)``; no gradient.
        negatives: teacher pixels of other images, ``(M, D)``; no gradient.
        excluded: ``(B, M)`` bool, True where a negative must not count for an image (because it is of that image).

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if queries.ndim != 3 or positives.shape != queries.shape or negatives.shape[1:] != queries.shape[2:]:
        raise ValueError(
            "pixel_similarities: want queries and positives (B, P, D) and negatives (M, D), got "
            f"{tuple(queries.shape)}, {tuple(positives.shape)} and {tuple(negatives.shape)}"
        )
    if excluded is not None and excluded.shape != (len(queries), len(negatives)):
        raise ValueError(
            f"pixel_similarities: want excluded ({len(queries)}, {len(negatives)}), got {tuple(excluded.shape)}"
        )
    with torch.autocast(queries.device.type, enabled=False):
        queries = F.normalize(queries.float(), dim=-1)
        positive = (queries * F.normalize(positives.detach().float(), dim=-1)).sum(dim=-1)
        negative = torch.einsum("bpd,md->bpm", queries, F.normalize(negatives.detach().float(), dim=-1))
    if excluded is not None:
        negative = negative.masked_fill(excluded[:, None], -torch.inf)
    return PixelSimilarities(positive, negative)


def pixel_contrast_loss(similarities: PixelSimilarities, temperature: float = 0.07) -> Tensor:
    """InfoNCE: ``mean_bp - log( e^(positive / tau) / (e^(positive / tau) + sum_m e^(negative_m / tau)) )``.

    Zero where no negative counts.
    """
    logits = torch.cat([similarities.positive[..., None], similarities.negative], dim=-1) / temperature
    targets = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)  # the positive comes first
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
