"""Settings that functions of this room hand on to those that do the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any

from slotcon_plugin.errors import UserError


def defaults_of(function: Callable) -> dict[str, Any]:
    """Parameters of a function that may be left out, and what they are then."""
    parameters = signature(function).parameters.items()
    return {name: each.default for name, each in parameters if each.default is not Parameter.empty}


def require_settings(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a setting that is not known.

    Args:
        what: is asked for, for the message: ``'retrieval'``.

    Raises:
        UserError: the first one.
    """
    for name in given:
        if name not in known:
            # what is spelt otherwise may be a setting of something else, and no slip
            near = get_close_matches(name, known, 1, cutoff=0.8)
            meant = f"did you mean {near[0]}?" if near else f"its settings are {', '.join(sorted(known))}"
            raise UserError(f"{what} has no setting {name}; {meant}")
