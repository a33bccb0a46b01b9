"""Settings that follow from the run: a recipe's value, or less of it where photos are few or the run is short.

A config writes ``teacher_momentum="${teacher_momentum(0.99)}"``: the recipe's .99, bounded by the rule of that name for
the photos and steps at hand. A rule is a function of this file; a value written in its place, in a config or on the
command line, is taken as it is. Configs of papers have none.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from slotcon_plugin.config.load import fit_schedules
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
        from_weights: the run does not start from random weights.
    """

    photos: int
    batch: int
    recipe_batch: int
    epochs: float
    steps: int
    from_weights: bool = False

    def __str__(self) -> str:
        start = ", from weights" if self.from_weights else ""
        epochs = f"{self.epochs:g} epoch{'s' if self.epochs != 1 else ''}"
        return f"{self.photos:,} photos, {epochs}, {self.steps:,} steps of {self.batch} images{start}"


def teacher_momentum(recipe: float, run: RunSize, schedule: str = "cosine") -> float:
    """at most .1 % of random initial weights stay in the teacher, 10 % of good ones.

    After T steps ``prod m_t = exp(-(1 - m) T)`` of them is left where the momentum is constant, and
    ``exp(-(1 - m) T / 2)`` where it rises from m to 1 along a cosine: e^-7 at ``m = 1 - 7 / T`` and ``1 - 14 / T``.
    The recipe's value is for its own batch (Busbridge et al., "How to scale your EMA", 2023).
    """
    halvings = {"constant": 1, "cosine": 2}[schedule]
    forgotten = -math.log(0.1) if run.from_weights else 7
    return min(recipe ** (run.batch / run.recipe_batch), max(round(1 - halvings * forgotten / run.steps, 4), 0.5))


def warmup_epochs(recipe: float, run: RunSize) -> float:
    """a tenth of the run at most, none of less than two steps."""
    epochs = min(recipe, float(f"{0.1 * run.epochs:.3g}"))
    return epochs if epochs * run.steps >= 2 * run.epochs else 0


def queue_size(recipe: int, run: RunSize, keys_per_photo: int = 1) -> int:
    """keys of half the photos at most, so that a photo meets others than its own."""
    return min(recipe, max(run.photos // 2, 1) * keys_per_photo)


def num_prototypes(recipe: int, run: RunSize) -> int:
    """the power of two nearest to the square root of the number of photos: 256 for COCO, as in the paper."""
    return min(recipe, 2 ** max(round(math.log2(run.photos) / 2), 1))


RULES: dict[str, Callable[..., Any]] = {
    rule.__name__: rule for rule in (teacher_momentum, warmup_epochs, queue_size, num_prototypes)
}
_OF_WEIGHTS = {"queue_size", "num_prototypes"}  # these decide shapes in a checkpoint


def has_rules(cfg: Config) -> bool:
    """Whether a config leaves a setting to the run."""
    return bool(_find(cfg._cfg_dict))


def settle(cfg: Config, run: RunSize | None = None, former: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put values in the place of rules, in place, and say in the log what they are and why.

    Args:
        cfg: a config that :func:`~slotcon_plugin.config.resolve` has completed.
        run: what the values follow from. None, where a model is built and not trained, gives the recipe's values.
        former: what this function gave for the run that wrote a checkpoint. What decides shapes is taken from it.

    Returns:
        Rule as the config writes it -> value.

    Raises:
        UserError: there is no such rule, or it is not written as one.
    """
    values: dict[str, Any] = {}
    lines = []
    for written in sorted(_find(cfg._cfg_dict)):
        name, recipe, more = _parse(written)
        value, why = recipe, ""
        if former and written in former and (run is None or name in _OF_WEIGHTS):
            value, why = former[written], "the checkpoint's"
        elif run is not None:
            value, why = _follow(written, name, recipe, run, more), RULES[name].__doc__.splitlines()[0].rstrip(".")
        values[written] = value
        lines.append(f"  {name} {value:g}{'' if value == recipe else f' (the recipe has {recipe:g})'}: {why}")
    for key, value in cfg.items():
        cfg._cfg_dict[key] = _replaced(value, values)
    fit_schedules(cfg._cfg_dict)
    if run is not None and lines:
        print_log("\n".join([f"Settings that follow from the run: {run}", *lines]), "current")
    return values


def _parse(written: str) -> tuple[str, Any, list[Any]]:
    """``${teacher_momentum(0.999, 'constant')}`` -> its name, the recipe's value, further arguments."""
    name = _RULE.fullmatch(written)[1]
    if name not in RULES:
        raise UserError(f"{written} in the config: there is no rule {name}; there are {', '.join(sorted(RULES))}")
    try:
        call = ast.parse(written[2:-1], mode="eval").body
        if call.keywords:
            raise ValueError(f"{call.keywords[0].arg}=")
        recipe, *more = map(ast.literal_eval, call.args)
    except (ValueError, SyntaxError) as error:
        raise UserError(
            f"{written} in the config: want the recipe's value in brackets, as ${{{name}(1)}}, further ones behind it "
            "without their names"
        ) from error
    return name, recipe, more


def _follow(written: str, name: str, recipe: Any, run: RunSize, more: list[Any]) -> Any:
    try:
        return RULES[name](recipe, run, *more)
    except (TypeError, KeyError) as error:
        takes = list(inspect.signature(RULES[name]).parameters)[2:]
        raise UserError(f"{written} in the config: {error}; behind the recipe's value: {takes or 'nothing'}") from error


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
