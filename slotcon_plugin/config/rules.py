"""Settings that follow from the run: a recipe's value, or less of it where photos are few or the run is short.

A config writes ``teacher_momentum="${teacher_momentum(0.99)}"``: the recipe's .99, bounded by the rule of that name for
the photos and steps at hand. A rule is a function of this file; a value written in its place, in a config or on the
command line, is taken as it is. Configs of papers have none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from slotcon_plugin.errors import UserError

_RULE = re.compile(r"\$\{(\w+)\((.*)\)\}")


@dataclass(frozen=True)
class RunSize:
    """What the rules go by.

    Attributes:
        photos: that are learned from.
        batch: images of an optimiser's step, over all processes.
        recipe_batch: total batch that the recipe's values are for.
        epochs: of the run.
        steps: of the optimiser in the whole run.
    """

    photos: int
    batch: int
    recipe_batch: int
    epochs: float
    steps: int

    def __str__(self) -> str:
        return f"{self.photos:,} photos, {self.epochs:g} epochs, {self.steps:,} steps of {self.batch} images"


def teacher_momentum(recipe: float, run: RunSize, schedule: str = "cosine") -> float:
    """the teacher forgets all but .1 % of the random initial weights.

    After T steps ``prod m_t = exp(-(1 - m) T)`` of them is left where the momentum is constant, and
    ``exp(-(1 - m) T / 2)`` where it rises from m to 1 along a cosine: e^-7 at ``m = 1 - 7 / T`` and ``1 - 14 / T``.
    The recipe's value is for its own batch (Busbridge et al., "How to scale your EMA", 2023).
    """
    forgets = {"constant": 7, "cosine": 14}[schedule]
    return min(recipe ** (run.batch / run.recipe_batch), max(round(1 - forgets / run.steps, 4), 0.5))


RULES: dict[str, Callable[..., Any]] = {rule.__name__: rule for rule in (teacher_momentum,)}


def has_rules(cfg: Config) -> bool:
    """Whether a config leaves a setting to the run."""
    return bool(_find(cfg._cfg_dict))


def settle(cfg: Config, run: RunSize | None = None) -> str:
    """Put values in the place of rules, in place.

    Args:
        cfg: a config that :func:`~slotcon_plugin.config.resolve` has completed.
        run: what the values follow from. None, where no run is meant, gives the recipe's values.

    Returns:
        What was settled and why, as the log says it; empty if nothing was to be settled.

    Raises:
        UserError: there is no such rule, or it is not written as one.
    """
    values: dict[str, Any] = {}
    lines = []
    for written in sorted(_find(cfg._cfg_dict)):
        name, recipe, more = _parse(written)
        values[written] = recipe if run is None else RULES[name](recipe, run, *more)
        instead = f", not the recipe's {recipe:g}" if values[written] != recipe else ""
        lines.append(f"  {name} {values[written]:g}{instead}: {RULES[name].__doc__.splitlines()[0].rstrip('.')}")
    for key, value in cfg.items():
        cfg._cfg_dict[key] = _replaced(value, values)
    return "\n".join([f"Settings that follow from {run}:", *lines]) if lines else ""


def _parse(written: str) -> tuple[str, Any, list[Any]]:
    """``${teacher_momentum(0.999, 'constant')}`` -> its name, the recipe's value, further arguments."""
    name = _RULE.fullmatch(written)[1]
    if name not in RULES:
        raise UserError(f"{written} in the config: there is no rule {name}; there are {', '.join(sorted(RULES))}")
    try:
        recipe, *more = (ast.literal_eval(argument) for argument in ast.parse(written[2:-1], mode="eval").body.args)
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{written} in the config: want the recipe's value in brackets, as ${{{name}(1)}}") from error
    return name, recipe, more


def _find(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value} if _RULE.fullmatch(value) else set()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return set().union(*map(_find, children))


def _replaced(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return values.get(value, value)
    if isinstance(value, dict):
        return type(value)({key: _replaced(child, values) for key, child in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(child, values) for child in value)
    return value
