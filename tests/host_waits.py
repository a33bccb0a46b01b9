"""Where the host waits for the device: each wait drains the queue of work that keeps the device busy."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import slotcon_plugin

_PACKAGE = os.path.join(os.path.dirname(slotcon_plugin.__file__), "")
_aten = torch.ops.aten
# Operations whose result is a Python number, or has a shape that only the values tell.
_WAITING = {
    *(_aten._local_scalar_dense, _aten.item, _aten.is_nonzero, _aten.equal, _aten.nonzero, _aten.masked_select),
    *(_aten._unique2, _aten.unique_dim, _aten.unique_consecutive, _aten.bincount),
}
_COPIES = {_aten._to_copy, _aten.copy_}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}


class HostWaits(TorchDispatchMode):
    """Counts operations that make the host wait for a device, by the line of the project that asks for them.

    On a CPU nothing waits; there it counts what would on an accelerator, as far as a CPU's tensors show it (copies to
    the host are none). With ``FakeTensorMode`` and tensors that claim to lie on a GPU it sees all, without a GPU.

    Args:
        device: type of the device that is waited for; operations on other tensors are not counted.

    Attributes:
        lines: how often each line waited, ``{"geometry.py:79 aten.nonzero": 1}``.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device
        self.lines: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self._waits(func.overloadpacket, args, kwargs, func):
            self.lines[f"{_asking_line()} {func.overloadpacket}"] += 1
        return func(*args, **kwargs)

    def _waits(self, op: Any, args: tuple, kwargs: dict, func: Any) -> bool:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if tensor.device.type == self.device]
        if op in _COPIES:
            source = args[1] if op is _aten.copy_ else args[0]
            target = args[0].device if op is _aten.copy_ else torch.device(kwargs.get("device") or source.device)
            free = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            if source.device.type == target.type or self.device not in (source.device.type, target.type):
                return False
            # A copy to pageable memory waits, whatever is asked for.
            return not free or (target.type == "cpu" and not (op is _aten.copy_ and args[0].is_pinned()))
        if not there:
            return False
        if op in _INDEXING:
            return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        return op in _WAITING or (func is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None)


def _asking_line() -> str:
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(_PACKAGE)]
    frame = frames[-1] if frames else traceback.extract_stack()[-3]
    return f"{frame.filename.removeprefix(_PACKAGE)}:{frame.lineno}"
