"""Figures that tell whether a pretraining is healthy; pure functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# More rows than this do not change the rank of a few hundred channels by much, but cost.
_MAX_ROWS = 1024


def entropy(weights: Tensor) -> float:
    """Entropy in nats of non-negative weights ``(N,)`` after they are made to sum to 1; 0 when all are zero."""
    weights = weights.double()
    total = weights.sum()
    if total <= 0:
        return 0.0
    p = weights[weights > 0] / total
    return max(0.0, -(p * p.log()).sum().item())


def effective_rank(vectors: Tensor) -> float:
    """``exp`` of the entropy of the singular values (Roy & Vetterli 2007) of vectors ``(N, D)`` of length 1.

    1 means that all vectors lie on one line, ``min(N, D)`` that they fill the space evenly. They are brought to
    length 1 because the losses see only their directions. They are not centred: vectors that are all alike are a
    collapse, which the noise around their mean must not hide. Of more than 1,024 vectors an evenly spaced selection is
    taken. Vectors that are not finite are left out; without any vector the rank is 0.
    """
    rows = vectors[:: -(-len(vectors) // _MAX_ROWS)] if len(vectors) > _MAX_ROWS else vectors
    rows = rows.detach().cpu().double()
    rows = rows[rows.isfinite().all(dim=1)]
    rows = torch.nn.functional.normalize(rows, dim=1)
    if not rows.any():
        return 0.0
    return math.exp(entropy(torch.linalg.svdvals(rows)))


def gradient_norm(parameters: list[Tensor]) -> Tensor:
    """L2 norm of all gradients together, a tensor on their device; the device is not waited for."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm(grads)).float().norm()


def usage_figures(usage: Tensor) -> dict[str, float]:
    """What the counts ``(K,)`` of images that show each prototype say.

    ``used_prototypes`` is how many were seen at all; ``usage_entropy`` is in nats, at most ``ln K``.
    """
    return {"used_prototypes": int((usage > 0).sum()), "usage_entropy": entropy(usage)}
