"""Targets that use all prototypes alike, by Sinkhorn-Knopp, in the place of a running center."""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import gather_ranks
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class Sinkhorn(nn.Module):
    """``center=dict(type='Sinkhorn')``: assignments of which every prototype gets the same share (SwAV, eq. 3 to 5).

    ``Q = exp(logits / tau_t)``, then ``iterations`` times: each prototype's row is scaled to a sum of N / K over the N
    positions, each position's column to a sum of 1. It has no state.

    Args:
        num_prototypes: ignored; accepted so that ``Center`` and ``Sinkhorn`` are interchangeable in a config.
        iterations: 3 in SwAV. Fewer iterations keep more of the original class frequencies.
        window: which positions share the prototypes. None = all of the batch, over all ranks. 1 = those at the same
            place of each overlap, so that no prototype stands for a place (CAPI); 3 = with their neighbours, for
            batches of few times K.
    """

    def __init__(self, num_prototypes: int = 256, iterations: int = 3, window: int | None = None) -> None:
        super().__init__()
        if iterations < 1:
            raise UserError(f"Sinkhorn: iterations must be at least 1, got {iterations}")
        if window is not None and (window < 1 or window % 2 == 0):
            raise UserError(f"Sinkhorn: window must be an odd number or None, got {window}")
        self.iterations = iterations
        self.window = window

    @torch.no_grad()
    def forward(self, assignment_logits: Tensor, temperature: float) -> Tensor:
        """Targets of ``(B, K, H, W)`` logits, in float32; they sum to 1 over K."""
        logits = assignment_logits.float() / temperature
        batch, num_prototypes, height, width = logits.shape
        if self.window is None:
            grouped = logits.permute(1, 0, 2, 3).reshape(1, num_prototypes, -1)  # (1, K, B*H*W)
            targets = self._share(grouped).reshape(num_prototypes, batch, height, width)
            return targets.transpose(0, 1)
        half = self.window // 2
        padded = F.pad(logits, (half,) * 4, value=-torch.inf)  # what lies outside weighs nothing
        seen = F.unfold(padded, self.window).reshape(batch, num_prototypes, -1, height * width)
        grouped = seen.permute(3, 1, 0, 2).flatten(2)  # (H*W, K, B*window^2)
        targets = self._share(grouped).unflatten(2, (batch, -1))[..., self.window**2 // 2]  # (H*W, K, B)
        return targets.permute(2, 1, 0).reshape(logits.shape)

    def _share(self, logits: Tensor) -> Tensor:
        """Alternate scaling of ``(groups, K, N)``, in logarithms; ranks share a group, N is the same on all of them."""
        outside = logits.isneginf().all(dim=1, keepdim=True)
        shares = ((~outside).sum(dim=2, keepdim=True) * get_world_size() / logits.shape[1]).log()  # N / K
        for _ in range(self.iterations):
            rows = gather_ranks(logits.logsumexp(dim=2)[None]).logsumexp(dim=0)[..., None]
            logits = (logits + shares - rows).log_softmax(dim=1).masked_fill(outside, -torch.inf)
        return logits.exp()

    def update(self, *assignment_logits: Tensor) -> None:
        """Does nothing: every batch is shared out anew."""
