"""Mixed precision on every device: autocast to bfloat16 or float16, with gradient scaling for the latter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import OPTIM_WRAPPERS

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward runs under autocast, on CPUs as well (mmengine's own needs a GPU).

    Gradient accumulation (``accumulative_counts=n``): gradients of n batches are averaged and one step is taken;
    BatchNorm, the center and the slots used as keys still see one batch at a time, so that it is not the same as a
    batch n times as large.

    Args:
        dtype: ``'bfloat16'``, ``'float16'`` or ``'float32'`` (no autocast).
        init_scale: the first loss scale, for float16.
        kwargs: see mmengine's ``OptimWrapper``.

    Attributes:
        step_skipped: the last step was left out, because a gradient was not finite (float16) or the guard refused.
        guard: asked with each loss before it is propagated back; what it refuses never reaches the weights.
    """

    guard: Callable[[Tensor], bool] | None = None

    def __init__(self, dtype: str = "bfloat16", init_scale: float = 2.0**16, **kwargs) -> None:
        if dtype not in _DTYPES:
            raise UserError(f"MixedPrecisionOptimWrapper: dtype must be one of {sorted(_DTYPES)}, got {dtype!r}")
        super().__init__(**kwargs)
        self.dtype = _DTYPES[dtype]
        self.device_type = torch.device(get_device()).type
        self.scaler = torch.amp.GradScaler(self.device_type, init_scale=init_scale, enabled=self.dtype is torch.float16)
        self.step_skipped = False

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast, and no gradient synchronisation between accumulated batches."""
        enabled = self.dtype is not torch.float32
        with super().optim_context(model), torch.autocast(self.device_type, self.dtype, enabled=enabled):
            yield

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """Propagate back and step, unless the guard refuses the loss.

        A batch refused, and those accumulated before it, are as if they had not been: counted, without a trace.
        """
        if self.guard is None or self.guard(loss):
            self.step_skipped = False
            super().update_params(loss, *args, **kwargs)
            return
        self.zero_grad()
        self._inner_count += 1
        self.step_skipped = True

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Back-propagate the scaled loss."""
        super().backward(self.scaler.scale(loss), **kwargs)

    def step(self, **kwargs) -> None:
        """Step unless a gradient is not finite; the optimiser's post-step hooks run on real steps only."""
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        scale_before = self.scaler.get_scale()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()
        self.step_skipped = self.scaler.get_scale() < scale_before

    def state_dict(self) -> dict:
        """mmengine's, with the scaler under ``loss_scaler``."""
        return {**super().state_dict(), "loss_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Counterpart of :meth:`state_dict`; a checkpoint without a scaler is taken as it is."""
        state_dict = dict(state_dict)
        scaler = state_dict.pop("loss_scaler", None)
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)
