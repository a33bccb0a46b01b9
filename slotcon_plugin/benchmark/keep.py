"""Result files where they are kept: copies that say nothing of the machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slotcon_plugin.benchmark.collect import ResultFile, collect
from slotcon_plugin.benchmark.plan import Plan, load_plan
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_json


def keep_results(plan: Plan, folders: Sequence[str | Path], out: Path) -> tuple[list[Path], list[str]]:
    """Copy the result files of a plan's runs to where they are kept, under the names that they have in their folders.

    Where a data set was moved, its path is replaced by the plan's own: a published command says what was run and not
    how this machine's folders are called.

    Returns:
        The copies, and a line for every file that was left because it is damaged or no step's.

    Raises:
        UserError: files of two folders would have one name.
    """
    usual = load_plan(plan.file).data
    places = {data.path: usual[name].path for name, data in plan.data.items() if name in usual}
    copies: dict[Path, ResultFile] = {}
    problems = []
    for folder in map(Path, folders):
        found, ignored = collect([folder])
        problems += ignored
        for file in found:
            copy = out / file.path.relative_to(folder)
            if copy in copies:
                raise UserError(f"--keep: {copies[copy].path} and {file.path} would both be {copy}: keep them apart")
            copies[copy] = file
    for copy, file in copies.items():
        write_json(copy, _portable(file.result, places), indent=1)
    return list(copies), problems


def _portable(value: Any, places: Mapping[str, str], key: str | None = None) -> Any:
    """A result, or a ``value`` in it under a key, with the places of data sets as the plan has them."""
    if isinstance(value, dict):
        return {name: _portable(inner, places, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner, places) for inner in value]
    if not isinstance(value, str):
        return value
    return _command(value, places) if key == "command" else _moved(value, places)


def _command(text: str, places: Mapping[str, str]) -> str:
    """A command line, whose words may be ``KEY=PATH``."""
    pairs = [word.partition("=") for word in shlex.split(text)]
    return shlex.join(f"{key}={_moved(value, places)}" if is_ else _moved(key, places) for key, is_, value in pairs)


def _moved(path: str, places: Mapping[str, str]) -> str:
    for here in sorted(places, key=len, reverse=True):  # of one place inside another that is meant
        if path == here or path.startswith(f"{here}/"):
            return places[here] + path.removeprefix(here)
    return path
