"""InfoNCE with one positive key a query and negatives of other images.

Of pixels (VADeR, arXiv 2011.05499, eq. 1), of positions of dense maps and of whole images (DenseCL, arXiv 2011.09157,
eq. 1 and 2; MoCo): an image then has a single query.

Similarities of thousands of queries to tens of thousands of negatives are gigabytes. All here go through them in
blocks of 2^24, 64 MiB in float32, of which three at most are held at a time; the results are those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 2**24


def info_nce_loss(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    excluded: Tensor | None = None,
    temperature: float = 0.07,
    decoupled: bool = False,
) -> Tensor:
    """``mean_bp - log( e^(positive / tau) / (e^(positive / tau) + sum_m e^(negative_m / tau)) )`` of cosines, float32.

    Zero where no negative counts.

    Args:
        queries: P of the student for each of B images, ``(B, P, D)``.
        positives: the teacher's key of each query, ``(B, P, D)``; no gradient.
        negatives: the teacher's keys of other images, ``(M, D)``; no gradient.
        excluded: ``(B, M)`` bool, True where a negative must not count for an image (because it is of that image).
        temperature: tau > 0.
        decoupled: leave the positive out of the denominator: ``log sum_m e^(negative_m / tau) - positive / tau`` (DCL;
            Yeh et al., 2110.06848), whose gradient does not fade where negatives are few.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    _check(queries, positives, negatives, excluded)
    with torch.autocast(queries.device.type, enabled=False):
        unit = _unit(queries)
        positive = (unit * _unit(positives.detach())).sum(dim=-1).flatten() / temperature
        negative = _LogSumExp.apply(unit.flatten(0, 1), _unit(negatives.detach()), excluded, temperature)
        if decoupled:
            return (negative - positive).where(negative.isfinite(), 0.0).mean()
        return F.softplus(negative - positive).mean()


@torch.no_grad()
def contrast_figures(
    queries: Tensor, positives: Tensor, negatives: Tensor, excluded: Tensor | None = None
) -> dict[str, Tensor]:
    """What to watch; arguments as :func:`info_nce_loss` has them.

    ``contrast_accuracy`` is the share of queries that are closer to their key than to every negative that counts,
    ``positive_similarity`` and ``negative_similarity`` are mean cosines; the latter over the negatives that count.
    """
    _check(queries, positives, negatives, excluded)
    with torch.autocast(queries.device.type, enabled=False):
        unit, keys = _unit(queries), _unit(negatives)
        positive = (unit * _unit(positives)).sum(dim=-1).flatten()
        closest, total, count = [], 0.0, 0
        for _, similarity in _blocks(unit.flatten(0, 1), keys, excluded):
            counted = similarity.isfinite()
            closest.append(similarity.amax(dim=1))
            total = total + similarity.where(counted, 0.0).sum()
            count = count + counted.sum()
    return {
        "contrast_accuracy": (positive > torch.cat(closest)).float().mean(),
        "positive_similarity": positive.mean(),
        "negative_similarity": total / count.clamp(min=1),
    }


@torch.no_grad()
def nearest_keys(queries: Tensor, keys: Tensor) -> Tensor:
    """Row of ``keys`` ``(M, D)`` with the largest cosine similarity to each query ``(..., D)``: ``(...)`` int64."""
    with torch.autocast(queries.device.type, enabled=False):
        blocks = _blocks(_unit(queries).flatten(0, -2), _unit(keys))
        return torch.cat([similarity.argmax(dim=1) for _, similarity in blocks]).view(queries.shape[:-1])


class _LogSumExp(torch.autograd.Function):
    """``log sum_m e^(q_n k_m / tau)`` over the keys that count, ``(N, D), (M, D) -> (N,)``; -inf if there is none.

    Its gradient, the mean of the keys under the softmax over tau, is summed up in the forward pass, block by block: as
    many matrix products as with all similarities kept.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, excluded: Tensor | None, temperature: float) -> Tensor:
        result = queries.new_empty(len(queries))
        gradient = torch.empty_like(queries) if ctx.needs_input_grad[0] else None
        for rows, similarity in _blocks(queries, keys, excluded):
            logits = similarity.div_(temperature)
            result[rows] = logits.logsumexp(dim=1)
            if gradient is not None:
                # without a key that counts the sum is -inf, and so is each logit: exp() shall give 0, not NaN
                finite = result[rows, None].clamp(min=torch.finfo(logits.dtype).min)
                gradient[rows] = (logits.sub_(finite).exp_() @ keys).div_(temperature)
        ctx.save_for_backward(gradient)
        return result

    @staticmethod
    def backward(ctx: Any, of_result: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return of_result[:, None] * gradient, None, None, None


def _blocks(queries: Tensor, keys: Tensor, excluded: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, and their products with all keys, -inf where excluded: ``(rows, M)``."""
    step = max(1, _BLOCK // max(1, len(keys)))
    image = (
        None
        if excluded is None
        else torch.arange(len(queries), device=queries.device) // (len(queries) // len(excluded))
    )
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        similarity = queries[rows] @ keys.T
        if image is not None:
            similarity.masked_fill_(excluded[image[rows]], -torch.inf)
        yield rows, similarity


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=-1)


def _check(queries: Tensor, positives: Tensor, negatives: Tensor, excluded: Tensor | None) -> None:
    if queries.ndim != 3 or positives.shape != queries.shape or negatives.shape[1:] != queries.shape[2:]:
        raise ValueError(
            "InfoNCE: want queries and positives (B, P, D) and negatives (M, D), got "
            f"{tuple(queries.shape)}, {tuple(positives.shape)} and {tuple(negatives.shape)}"
        )
    if excluded is not None and excluded.shape != (len(queries), len(negatives)):
        raise ValueError(f"InfoNCE: want excluded ({len(queries)}, {len(negatives)}), got {tuple(excluded.shape)}")
