"""The tensors of a loaded file under dotted names, wherever in it they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotcon_plugin.errors import ConversionError

_MAX_DEPTH = 8


def tensors_of(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """All tensors of nested dicts: ``{'state_dict': {'conv1.weight': w}}`` -> ``{'state_dict.conv1.weight': w}``.

    Keys that are no strings (an optimiser's state) are passed over; numpy arrays become tensors.

    Raises:
        ConversionError: there is none, or an array of numbers that torch does not have.
    """
    found: dict[str, Tensor | np.ndarray] = {}
    _collect(content, "", found, set(), _MAX_DEPTH)
    if not found:
        keys = ", ".join(repr(key)[:40] for key in list(content)[:10])
        raise ConversionError(f"{where} holds no tensors under names; its keys: {keys or 'none'}")
    return {name: _as_tensor(value, f"{where}: {name}") for name, value in found.items()}


def model_tensors(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """The tensors of the one model that a training framework saved, under the model's own names.

    Raises:
        ConversionError: there is none.
    """
    containers = (content.get(name) for name in ("state_dict", "model"))  # mmengine's; detectron2's and SlotCon's
    return tensors_of(next((c for c in containers if isinstance(c, Mapping)), content), where)


def _collect(
    content: Mapping[Any, Any], prefix: str, into: dict[str, Tensor | np.ndarray], met: set[int], depth: int
) -> None:
    if id(content) in met or depth == 0:  # a dict may stand in many places, or in itself
        return
    met.add(id(content))
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Mapping):
            _collect(value, f"{prefix}{key}.", into, met, depth - 1)
        elif isinstance(value, (Tensor, np.ndarray)):
            into[prefix + key] = value


def _as_tensor(value: Tensor | np.ndarray, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value.astype(value.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise ConversionError(
            f"{what} is an array of {value.dtype}, which torch does not have; expected numbers of 16, 32 or 64 bits: "
            "save it as float32"
        ) from error
