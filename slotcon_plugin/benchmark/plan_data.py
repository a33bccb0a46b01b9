"""The data sets of a plan in its commands: their paths, and the steps that make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.key_values import spelled


def makers(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the steps that make those of these data sets which the plan makes itself."""
    return tuple(f"data/{name}" for name in dict.fromkeys(names) if plan.data[name].demo_scenes)


def scenes(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """How those are made, see ``Data.demo_scenes``."""
    return tuple(text for name in dict.fromkeys(names) for text in plan.data[name].demo_scenes)


def key_values(plan: Plan, options: Mapping[str, Any] | None) -> list[str]:
    """For ``--cfg-options``."""
    return [f"{key}={spelled(_moved(plan, value))}" for key, value in (options or {}).items()]


def _moved(plan: Plan, value: Any) -> Any:
    """An option with the paths of data sets in all its texts."""
    if isinstance(value, Mapping):
        return {key: _moved(plan, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(plan, inner) for inner in value)
    return with_paths(plan, value) if isinstance(value, str) else value


def with_paths(plan: Plan, value: Any) -> str:
    """``{coco}/train2017`` with the path of the data set ``coco``."""
    text = str(value)
    for name, data in plan.data.items():
        text = text.replace(f"{{{name}}}", data.path)
    return text
