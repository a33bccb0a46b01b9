"""InfoNCE with one positive key a query and negatives of other images.

Of pixels (VADeR, arXiv 2011.05499, eq. 1), of positions of dense maps and of whole images (DenseCL, arXiv 2011.09157,
eq. 1 and 2; MoCo): an image then has a single query.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Similarities(NamedTuple):
    """Cosine similarities in [-1, 1], float32.

    Attributes:
        positive: of each query to its own key, ``(B, P)``.
        negative: of each query to each negative, ``(B, P, M)``; ``-inf`` where the negative does not count.
    """

    positive: Tensor
    negative: Tensor


def cosine_similarities(
    queries: Tensor, positives: Tensor, negatives: Tensor, excluded: Tensor | None = None
) -> Similarities:
    """How close each query is to its positive and to all negatives.

    Args:
        queries: P of the student for each of B images, ``(B, P, D)``.
        positives: the teacher's key of each query, ``(B, P, D)``; no gradient.
        negatives: the teacher's keys of other images, ``(M, D)``; no gradient.
        excluded: ``(B, M)`` bool, True where a negative must not count for an image (because it is of that image).

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if queries.ndim != 3 or positives.shape != queries.shape or negatives.shape[1:] != queries.shape[2:]:
        raise ValueError(
            "cosine_similarities: want queries and positives (B, P, D) and negatives (M, D), got "
            f"{tuple(queries.shape)}, {tuple(positives.shape)} and {tuple(negatives.shape)}"
        )
    if excluded is not None and excluded.shape != (len(queries), len(negatives)):
        raise ValueError(
            f"cosine_similarities: want excluded ({len(queries)}, {len(negatives)}), got {tuple(excluded.shape)}"
        )
    with torch.autocast(queries.device.type, enabled=False):
        queries = F.normalize(queries.float(), dim=-1)
        positive = (queries * F.normalize(positives.detach().float(), dim=-1)).sum(dim=-1)
        negative = torch.einsum("bpd,md->bpm", queries, F.normalize(negatives.detach().float(), dim=-1))
    if excluded is not None:
        negative = negative.masked_fill(excluded[:, None], -torch.inf)
    return Similarities(positive, negative)


def info_nce_loss(similarities: Similarities, temperature: float = 0.07) -> Tensor:
    """InfoNCE: ``mean_bp - log( e^(positive / tau) / (e^(positive / tau) + sum_m e^(negative_m / tau)) )``.

    Zero where no negative counts.
    """
    logits = torch.cat([similarities.positive[..., None], similarities.negative], dim=-1) / temperature
    targets = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)  # the positive comes first
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def contrast_figures(similarities: Similarities) -> dict[str, Tensor]:
    """What to watch: ``contrast_accuracy`` is the share of queries that are closer to their key than to every negative.

    ``positive_similarity`` and ``negative_similarity`` are means; the latter over the negatives that count.
    """
    positive, negative = similarities
    counted = negative.isfinite()
    return {
        "contrast_accuracy": (positive > negative.amax(dim=-1)).float().mean(),
        "positive_similarity": positive.mean(),
        "negative_similarity": negative.where(counted, 0.0).sum() / counted.sum().clamp(min=1),
    }
