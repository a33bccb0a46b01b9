"""Group-level contrast between slots (SlotCon, eq. 5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def slot_contrast_loss(queries: Tensor, keys: Tensor, targets: Tensor, temperature: float = 0.2) -> Tensor:
    """Sum over queries of the InfoNCE of each query against all keys, scaled by ``2 * temperature``.

    ``sum_n -log softmax_m(cos(query_n, key_m) / tau_c)[targets_n] * 2 tau_c``. It is a sum, not a mean: the caller
    divides by the number of queries of all ranks, so that a rank's share does not depend on how many it has.

    Args:
        queries: predicted student slots, ``(N, D)``; N may be 0, which gives 0.
        keys: teacher slots, ``(M, D)``; they get no gradient.
        targets: index in ``[0, M)`` of each query's positive, ``(N,)`` int64.
        temperature: tau_c > 0.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or targets.shape != queries.shape[:1]:
        raise ValueError(
            f"slot_contrast_loss: want queries (N, D), keys (M, D), targets (N,), got {tuple(queries.shape)}, "
            f"{tuple(keys.shape)}, {tuple(targets.shape)}"
        )
    if len(queries) == 0:
        return queries.sum() * 0.0
    similarity = F.normalize(queries.float(), dim=1) @ F.normalize(keys.detach().float(), dim=1).T
    return F.cross_entropy(similarity / temperature, targets, reduction="sum") * (2 * temperature)
