"""What the device has found out, read by the host when it has arrived: the device never runs out of work for it."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from slotcon_plugin.registry import HOOKS


class LateFlag:
    """Yes or no from the device, one call late.

    ``item()`` waits for all that the device has been asked to do. A copy to pinned memory with an event behind it is
    there as soon as the flag is: by the next step, long ago.
    """

    def __init__(self) -> None:
        self._sent: Tensor | None = None
        self._arrival: torch.cuda.Event | None = None

    def __call__(self, flag: Tensor) -> bool:
        """Send a flag ``()`` on its way; returns the one that was sent before it, False at first."""
        before = self.last()
        if flag.is_cuda:
            if self._sent is None:
                self._sent, self._arrival = torch.empty((), pin_memory=True), torch.cuda.Event()
            self._sent.copy_(flag, non_blocking=True)
            self._arrival.record()
        else:
            self._sent = flag.clone()
        return before

    def last(self) -> bool:
        """The flag that is on its way."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._sent is not None and bool(self._sent)


class LateHistory(HistoryBuffer):
    """mmengine's history of a figure, which leaves numbers on the device until somebody asks for them.

    A copy of it, as in checkpoints, is mmengine's own class.
    """

    def __init__(self, former: HistoryBuffer | None = None) -> None:
        self._on_device: list[Tensor] = []
        super().__init__(*(former.data if former else ()))

    def update(self, log_val: Tensor | float, count: int = 1) -> None:
        """Add a figure; a tensor of one element is not read now."""
        if isinstance(log_val, Tensor):
            self._on_device.append(log_val.detach())
        else:
            super().update(log_val, count)

    @property
    def _log_history(self):  # what all of mmengine's methods begin with
        self._read()
        return self._values

    @_log_history.setter
    def _log_history(self, values) -> None:
        self._values = values

    @property
    def _count_history(self):
        self._read()
        return self._counts

    @_count_history.setter
    def _count_history(self, counts) -> None:
        self._counts = counts

    def _read(self) -> None:
        if self._on_device:
            numbers = torch.stack([value.float().reshape(()) for value in self._on_device]).tolist()
            self._on_device = []
            everything = HistoryBuffer([*self._values, *numbers], [*self._counts, *[1] * len(numbers)], self.max_length)
            self._values, self._counts = everything.data

    def on_host(self) -> np.ndarray:
        """The figures that have been read, and those that need no device for it."""
        if not any(value.is_cuda for value in self._on_device):
            self._read()
        return self._values

    def __deepcopy__(self, memo: dict) -> HistoryBuffer:
        return HistoryBuffer(*self.data, self.max_length)


def log_late(hub: MessageHub, name: str, value: Tensor | float) -> None:
    """``hub.update_scalar``, except that a tensor's number is read when it is asked for."""
    history = hub.log_scalars.get(name)
    if not isinstance(history, LateHistory):
        hub._set_resumed_keys(name, True)
        history = hub.log_scalars[name] = LateHistory(history)
    history.update(value)


def mean_on_host(hub: MessageHub, name: str, window: int) -> float | None:
    """Mean of the last figures of those that need not be waited for; None if there is none."""
    history = hub.log_scalars.get(name)
    values = () if history is None else history.on_host() if isinstance(history, LateHistory) else history.data[0]
    return float(values[-window:].mean()) if len(values) else None


@HOOKS.register_module()
class LateRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's, except that losses and figures stay on the device until they are reported."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Note what the model returned."""
        for name, value in (outputs or {}).items():
            log_late(runner.message_hub, f"train/{name}", value)
