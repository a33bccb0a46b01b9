"""Group-level contrast between slots (SlotCon, eq. 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The target of a row that is no query, but fills up a fixed shape.
NOT_ASKED = -100


def slot_contrast_loss(
    queries: Tensor, keys: Tensor, targets: Tensor, temperature: float = 0.2, counted: Tensor | None = None
) -> Tensor:
    """Sum over queries of the InfoNCE of each query against all keys, scaled by ``2 * temperature``.

    ``sum_n -log softmax_m(cos(query_n, key_m) / tau_c)[targets_n] * 2 tau_c``. It is a sum, not a mean: the caller
    divides by the number of queries of all ranks, so that a rank's share does not depend on how many it has.

    Args:
        queries: predicted student slots, ``(N, D)``; N may be 0, which gives 0.
        keys: teacher slots, ``(M, D)``; they get no gradient.
        targets: index in ``[0, M)`` of each query's positive, ``(N,)`` int64; ``NOT_ASKED`` where a row does not count.
        temperature: tau_c > 0.
        counted: which keys count, ``(M,)`` bool, at least one; all when None.

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
    with torch.autocast(queries.device.type, enabled=False):
        logits = F.normalize(queries.float(), dim=1) @ F.normalize(keys.detach().float(), dim=1).T / temperature
    if counted is not None:
        logits = logits.masked_fill(~counted, -torch.inf)
    return F.cross_entropy(logits, targets, ignore_index=NOT_ASKED, reduction="sum") * (2 * temperature)
