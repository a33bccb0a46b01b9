"""Parts of a pretrainer, built from their configs and from what the parts before them settle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import MODELS


def build_part(name: str, config: Mapping[str, Any], default_type: str, **settled: Any) -> nn.Module:
    """Build one part.

    Args:
        name: of the part in the model's config, for messages.
        config: its config; ``type`` may be left out.
        default_type: class of the registry that is meant then.
        settled: options that follow from the other parts, such as ``in_channels``.

    Raises:
        UserError: the config gives one of these options another value, which would have no effect.
    """
    for option, value in settled.items():
        asked = config.get(option, value)
        if (tuple(asked) if isinstance(asked, list) else asked) != value:
            raise UserError(
                f"model.{name}.{option}={asked!r} cannot be: the other parts of the model make it {value!r}. Leave it "
                f"out of the config, or change the parts that it follows from"
            )
    return MODELS.build({"type": default_type, **config, **settled})


def compile_parts(parts: Sequence[nn.Module], mode: str) -> list[tuple[nn.Module, Callable]]:
    """Have ``torch.compile`` take over the calls of some parts, each for maps of one size.

    Returns:
        Each part with its compiled call, which torch keeps in ``part._compiled_call_impl``.
    """
    # torch counts by code, which parts of one class share: beyond its limit of 8 the rest would quietly not be compiled
    config = torch._dynamo.config
    # (recompile_limit from torch 2.7 on, which takes the former name as well)
    config.cache_size_limit = max(config.cache_size_limit, 2 * len(parts))
    for part in parts:
        part.compile(mode=mode, dynamic=False)
    return [(part, part._compiled_call_impl) for part in parts]


def plain(config: Any) -> Any:
    """A config as nested dicts, lists and scalars, which any reader of checkpoints loads; a class becomes its name."""
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    if config is None or isinstance(config, (str, bool, int, float)):
        return config
    return getattr(config, "__name__", str(config))
