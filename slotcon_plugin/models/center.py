"""Targets that the student's assignments are asked to match.

A center is a module that makes targets of the teacher's logits, and keeps one prototype from taking everything:
``center(aligned_logits, temperature)`` gives a distribution over prototypes at each position, ``center.update(...)`` is
given the logits of both views once a step; it alone changes the center's state. To use another one, register a class
with ``num_prototypes`` among its arguments and name it in ``model.center.type``. If it has a ``value`` (K,), the
health hook reports its norm.
"""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import all_reduce_sum
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class Center(nn.Module):
    """``value <- m * value + (1 - m) * mean of the logits`` over batch, positions and ranks (SlotCon, eq. 3).

    Args:
        num_prototypes: K.
        momentum: m, the share that is kept. 1 keeps the center at zero, i.e. disables centering.
    """

    def __init__(self, num_prototypes: int = 256, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise UserError(f"Center: momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(num_prototypes))

    def forward(self, assignment_logits: Tensor, temperature: float) -> Tensor:
        """``softmax((logits - value) / tau_t)`` over K of ``(B, K, H, W)`` logits, in float32."""
        centered = assignment_logits.float() - self.value.view(1, -1, 1, 1)
        return (centered / temperature).softmax(dim=1)

    @torch.no_grad()
    def update(self, *assignment_logits: Tensor) -> None:
        """Move towards the mean of the given ``(B, K, H, W)`` logits, the same on every rank."""
        seen = torch.stack([logits.float().mean(dim=(0, 2, 3)) for logits in assignment_logits]).mean(dim=0)
        (seen,) = all_reduce_sum(seen)
        self.value.mul_(self.momentum).add_(seen / get_world_size(), alpha=1 - self.momentum)
