"""Mixed precision on every device: autocast to bfloat16 or float16, with gradient scaling for the latter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from slotcon_plugin.engine.late import LateFlag, log_late
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import OPTIM_WRAPPERS

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward runs under autocast, on CPUs as well (mmengine's own needs a GPU).

    Steps are left out when a gradient is not finite (float16) or the guard refuses the loss. On a GPU the optimiser
    does that by itself, if it can (:class:`~slotcon_plugin.engine.LARS`, and torch's with ``fused=True``): the host
    goes on and hears of it a step later. Other optimisers make the host wait for the device twice a step.

    Gradient accumulation (``accumulative_counts=n``): gradients of n batches are averaged and one step is taken;
    BatchNorm, the center and the slots used as keys still see one batch at a time, so that it is not the same as a
    batch n times as large.

    Args:
        dtype: ``'bfloat16'``, ``'float16'`` or ``'float32'`` (no autocast).
        init_scale: the first loss scale, for float16.
        kwargs: see mmengine's ``OptimWrapper``.

    Attributes:
        on_device: the optimiser leaves steps out by itself. All batches accumulated for a step are then left out
            together; otherwise those up to the refused one.
        step_skipped: the last step was left out; the last but one, if ``on_device``.
        before_step: called before gradients are unscaled and clipped, to throw away those of parts that are held.
        guard: asked with each loss before it is propagated back. Gives a flag ``()`` on the loss's device, 1 for a loss
            that must not reach the weights.
    """

    guard: Callable[[Tensor], Tensor] | None = None

    def __init__(self, dtype: str = "bfloat16", init_scale: float = 2.0**16, **kwargs) -> None:
        if dtype not in _DTYPES:
            raise UserError(f"MixedPrecisionOptimWrapper: dtype must be one of {sorted(_DTYPES)}, got {dtype!r}")
        super().__init__(**kwargs)
        self.dtype = _DTYPES[dtype]
        self.device_type = torch.device(get_device()).type
        self.scaler = torch.amp.GradScaler(self.device_type, init_scale=init_scale, enabled=self.dtype is torch.float16)
        self.on_device = self.device_type == "cuda" and getattr(self.optimizer, "_step_supports_amp_scaling", False)
        self.step_skipped = False
        _give_momentum(self.optimizer)
        self.before_step: list[Callable[[], None]] = []
        self._refused: Tensor | None = None  # by the guard, since the last step
        self._left_out = LateFlag()

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
        refused = None if self.guard is None else self.guard(loss)
        if refused is not None and not self.on_device and refused.item():
            self.zero_grad()
            self._inner_count += 1
            self.step_skipped = True
            return
        if self.on_device and refused is not None:
            self._refused = refused if self._refused is None else torch.maximum(self._refused, refused)
        self.step_skipped = False
        super().update_params(loss, *args, **kwargs)

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Back-propagate the scaled loss."""
        super().backward(self.scaler.scale(loss), **kwargs)

    def step(self, **kwargs) -> None:
        """Step unless a gradient is not finite or a loss was refused.

        The optimiser's post-step hooks run on real steps only; with ``on_device`` on all, and ``optimizer.found_inf``
        tells them.
        """
        for prepare in self.before_step:
            prepare()
        flags = [] if self._refused is None else [self._refused]
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
            flags += self.scaler._found_inf_per_device(self.optimizer).values()
        if self.clip_grad_kwargs:
            self._clip_grad()
        self._refused = None
        left_out = torch.stack(flags).amax() if flags else None
        if left_out is None:
            self.optimizer.step(**kwargs)
        elif self.on_device:
            self.optimizer.found_inf = left_out
            try:
                self.optimizer.step(**kwargs)
            finally:
                del self.optimizer.found_inf
            self.step_skipped = self._left_out(left_out)
        else:
            self.step_skipped = bool(left_out)
            if not self.step_skipped:
                self.optimizer.step(**kwargs)
        self.scaler.update()

    def _clip_grad(self) -> None:
        """mmengine's, except that the norm is not read before it is reported."""
        groups = self.optimizer.param_groups
        with_grad = [p for group in groups for p in group["params"] if p.grad is not None]
        norm = self.clip_func(with_grad, **self.clip_grad_kwargs) if with_grad else None
        if norm is not None:
            log_late(self.message_hub, f"train/{self.grad_name}", norm)

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


def before_each_step(wrapper: OptimWrapper, function: Callable[[], None], who: str) -> None:
    """Have a hook's function called before each step of the optimiser.

    Args:
        wrapper: of the run.
        function: see ``before_step`` of :class:`MixedPrecisionOptimWrapper`.
        who: the hook, for the message.

    Raises:
        UserError: the wrapper is another.
    """
    if not isinstance(wrapper, MixedPrecisionOptimWrapper):
        raise UserError(
            f"{who} throws gradients away before they are clipped, which {type(wrapper).__name__} has no place for: "
            "set optim_wrapper.type=MixedPrecisionOptimWrapper (with dtype='float32' it is mmengine's OptimWrapper)"
        )
    wrapper.before_step.append(function)


def _give_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let fused SGD begin with a momentum of zeros, which gives the same first step.

    By itself it allocates momentum in the first step and fills it there: one that is left out leaves it as it was found
    in memory, and parameters that join later have none.
    """
    for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
