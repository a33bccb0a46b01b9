"""LARS: layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888), in fused multi-tensor calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import OPTIMIZERS


@OPTIMIZERS.register_module(force=True)
class LARS(Optimizer):
    """SGD with momentum whose step is scaled by ``trust * ||w|| / ||g + wd * w||``, one factor a tensor.

    Tensors of one dimension (biases, BatchNorm) take neither weight decay nor the scaling. A tensor whose own norm
    or whose gradient's norm is zero is not scaled either. Gradients are scaled in place: a copy of them would cost
    as much memory as the model.

    Args:
        params: parameters or groups.
        lr: step size.
        momentum: of the velocity ``v <- momentum * v + scaled gradient``.
        weight_decay: L2 penalty, of tensors with two dimensions or more.
        trust_coefficient: eta of the paper.

    Attributes:
        found_inf: set by who asks for a step that the device must leave out where this is 1, ``()`` float32; torch's
            fused optimisers know the same.
        grad_scale: likewise, what gradients are divided by first.
    """

    _step_supports_amp_scaling = True  # torch's name for an optimiser that heeds the two

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}.items():
            if value < 0:
                raise UserError(f"LARS: {name} must not be negative, got {value}")
        super().__init__(
            params,
            dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient),
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step; a few kernel launches, and one more for each adapted tensor."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            if not with_grad:
                continue
            if getattr(self, "grad_scale", None) is not None:
                torch._foreach_div_([p.grad for p in with_grad], self.grad_scale)
            adapted = [p for p in with_grad if p.ndim > 1]
            if adapted:
                self._adapt_gradients(adapted, group)
            self._apply(with_grad, group)
        return loss

    @staticmethod
    def _adapt_gradients(params: list[Tensor], group: dict) -> None:
        grads = [p.grad for p in params]
        torch._foreach_add_(grads, params, alpha=group["weight_decay"])
        weight_norms = torch.stack(torch._foreach_norm(params))
        grad_norms = torch.stack(torch._foreach_norm(grads))
        scaled = (weight_norms > 0) & (grad_norms > 0)
        # where() keeps the division by a zero norm out of the result without asking the device
        trust = torch.where(scaled, group["trust_coefficient"] * weight_norms / grad_norms, 1.0)
        torch._foreach_mul_(grads, list(trust.unbind()))

    def _apply(self, params: list[Tensor], group: dict) -> None:
        for p in params:
            if "velocity" not in self.state[p]:
                self.state[p]["velocity"] = torch.zeros_like(p)
        torch._fused_sgd_(
            params,
            [p.grad for p in params],
            [self.state[p]["velocity"] for p in params],
            weight_decay=0.0,  # is in the gradient
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
            found_inf=getattr(self, "found_inf", None),
        )
