"""The running mean of the teacher's logits, which keeps one prototype from taking everything."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import all_reduce_sum
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class Center(nn.Module):
    """``value <- m * value + (1 - m) * mean of the logits`` over batch, positions and ranks (SlotCon, eq. 3).

    Args:
        num_prototypes: K.
        momentum: m, the share that is kept. 1 keeps the centre at zero, that is, turns centring off.
    """

    def __init__(self, num_prototypes: int = 256, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f"Center: momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(num_prototypes))

    def forward(self, assignment_logits: Tensor) -> Tensor:
        """Subtract the centre from ``(B, K, ...)`` logits."""
        return assignment_logits - self.value.view(1, -1, *[1] * (assignment_logits.ndim - 2))

    @torch.no_grad()
    def update(self, *assignment_logits: Tensor) -> None:
        """Move towards the mean of the given ``(B, K, H, W)`` logits, the same on every rank."""
        seen = torch.stack([logits.float().mean(dim=(0, 2, 3)) for logits in assignment_logits]).mean(dim=0)
        seen, ranks = all_reduce_sum(seen, torch.ones((), device=seen.device))
        self.value.mul_(self.momentum).add_(seen / ranks, alpha=1 - self.momentum)
