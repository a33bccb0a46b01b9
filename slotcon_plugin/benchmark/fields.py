"""An entry of a plan: a dataclass, whose fields take what their annotations say and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from slotcon_plugin.errors import UserError

Entry = TypeVar("Entry")


def entry_of(kind: type[Entry], where: str, given: Any) -> Entry:
    """A dataclass from what a plan gives; lists become tuples.

    Args:
        kind: of the entry; its annotations are texts, and those of :data:`_TAKES`.
        where: in the plan, for messages: ``tasks.probe``.

    Raises:
        UserError: it is no dict, a field is none of the entry's, a value is not what the field takes, or one that has
            no default is left out.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: expected dict(...), got {given!r}")
    known = {field.name: field for field in fields(kind)}
    if foreign := sorted(set(given) - set(known)):
        raise UserError(f"{where} has no {foreign}; it knows {sorted(known)}")
    for key, value in given.items():
        annotation, optional, _ = known[key].type.partition(" | None")
        expected, takes = _TAKES[annotation]
        if not (takes(value) or (optional and value is None)):
            raise UserError(f"{where}.{key}: expected {expected.replace('KEY', key)}, got {value!r}")
    if missing := [name for name, field in known.items() if _has_no_default(field) and name not in given]:
        raise UserError(f"{where}: expected {', '.join(missing)} as well")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


def is_list_of_text(value: Any) -> bool:
    """Whether it is a list or tuple that holds texts alone."""
    return isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)


def _has_no_default(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_TAKES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a text", lambda value: isinstance(value, str)),
    # A bool is an int, and neither a text such as 1h nor less than nothing can be added up.
    "float": ("a number of at least 0", lambda value: type(value) in (int, float) and 0 <= value < math.inf),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "tuple[str, ...]": ("a list of texts, KEY=['...']", is_list_of_text),
    "Mapping[str, Any]": ("a dict, KEY={'...': ...}", _is_dict),
    "Mapping[str, Mapping[str, Any]]": (
        "a dict of dicts, KEY={'...': {'...': ...}}",
        lambda value: _is_dict(value) and all(map(_is_dict, value.values())),
    ),
}
"""Annotation -> what messages call it, and whether a value is one."""
