"""What a run has left in its work dir, and what is meant when the folder is named in the place of a file."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.files import zip_damage

NUMBERED = re.compile(r"(iter|epoch|model)_(\d+|final)\.pth")
RUN_FILE = "run.json"
"""In a work dir: the run that it belongs to, see :mod:`slotcon_plugin.engine.work_dir`."""
CONTINUES = "continues"
"""Key of a ``run.json``: the checkpoint that the run went on from under a new id, seen from the folder."""
RUN = "run"
"""Key under which a checkpoint (mmengine: its ``meta``) says which run wrote it."""
_NOT_THE_RECIPE = "transfer_config.py"  # as a transfer run was given it, for the proof of its backbone


def numbered_checkpoints(work_dir: str | Path) -> list[Path]:
    """The checkpoints that a run of mmengine or detectron2 has left in its work dir, newest first.

    Where some are numbered by iterations and others by epochs, as when a run that saves by the epoch was asked to
    stop, what is in them decides; those that cannot be read come first.
    """
    found = [(path, m) for path in Path(work_dir).glob("*.pth") if (m := NUMBERED.fullmatch(path.name))]
    if len({m[1] for _, m in found}) > 1:
        numbers = {path: _position(path) for path, _ in found}
    else:
        numbers = {path: sys.maxsize if m[2] == "final" else int(m[2]) for path, m in found}
    return sorted(numbers, key=lambda path: (numbers[path], path), reverse=True)


class Search(NamedTuple):
    """What :func:`newest_whole` has found.

    Attributes:
        checkpoint: None = no whole one that counts.
        damaged, foreign: names of newer ones, passed over because they are not whole, or do not count.
    """

    checkpoint: Path | None
    damaged: list[str]
    foreign: list[str]


def newest_whole(folder: Path, record: Mapping[str, Any], counts: Callable[[Path], bool]) -> Search:
    """The checkpoint that a work dir stands for; a warning names each damaged one that is passed over.

    Args:
        folder: the work dir.
        record: what its ``run.json`` says, see :func:`run_record`.
        counts: whether a whole checkpoint is one of the run's; if none is, the one counts that the run went on from.
    """
    damaged, foreign = [], []
    for path in numbered_checkpoints(folder):
        if damage := zip_damage(path):
            _warn(f"{path} is damaged or cut short ({damage}); trying the one before it")
            damaged.append(path.name)
        elif counts(path):
            return Search(path, damaged, foreign)
        else:
            foreign.append(path.name)
    start = start_of(folder, record)
    return Search(start if start and start.is_file() and not zip_damage(start) else None, damaged, foreign)


def _warn(text: str) -> None:
    from mmengine.logging import print_log  # to the log of the run that is resumed, if it is one

    print_log(text, "current", logging.WARNING)


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint's own path, or the newest whole one of a work dir.

    Where the run went back to an earlier checkpoint and on from there, those of the course that was left do not count.

    Raises:
        ConversionError: a folder without a whole checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    run = run_record(path)

    def counts(checkpoint: Path) -> bool:
        return not run.get(CONTINUES) or run_of(load_file(checkpoint)).get("id") in (None, run["id"])

    if found := newest_whole(path, run, counts).checkpoint:
        return found
    raise ConversionError(f"the folder {path} holds no whole checkpoint (iter_N.pth, epoch_N.pth or model_N.pth)")


def locate(path: str | Path) -> Path:
    """The file behind a path, a run's work dir, or a model zoo's name (looked up in that library's cache alone).

    Raises:
        ConversionError: the zoo's file has not been downloaded; a folder holds no whole checkpoint.
    """
    scheme, _, name = str(path).partition("://")
    if not name:
        return find_checkpoint(path)
    if scheme == "torchvision":
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        found = sorted(folder.glob(f"{name}-*.pth"))
    elif scheme == "detectron2":
        folder = Path(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser() / "detectron2"
        found = [folder / name] if (folder / name).is_file() else []
    else:
        raise ConversionError(f"{path}: no such scheme; known: torchvision://, detectron2://, or the path of a file")
    if not found:
        raise ConversionError(f"{path} is not in {folder}; download it first, or give the path of the file")
    return found[-1]


def config_of(path: str | Path) -> Path:
    """The config that a run has left in its work dir; a checkpoint stands for its folder, a config for itself.

    Of several copies that runs have left (a run may be resumed from a config of another name) it is the one that the
    checkpoint was trained with, else the newest. Other files are told from them unexecuted: any script may lie there.

    Raises:
        ConversionError: there is none there, or several, none of which a run has left.
    """
    path = Path(path)
    if not path.exists() or path.suffix == ".py":
        return path
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.glob("*.py") if file.name != _NOT_THE_RECIPE)
    found = {file: copied for file in files if (copied := _is_copy(file)) is not None}
    if not found:
        others = f"; {', '.join(file.name for file in files)} set no model" if files else ""
        raise ConversionError(
            f"no config (.py) in {folder}; expected the work dir of a run, which has one beside its checkpoints{others}"
        )
    copies = [file for file, copied in found.items() if copied]
    if len(found) > 1 and not copies:
        raise ConversionError(
            f"{folder} holds several configs, {', '.join(file.name for file in found)}, and no copy that a run has "
            "left: say which with --config (tools without it take CONFIG CHECKPOINT in the place of the folder)"
        )
    if len(found) == 1 or len(copies) == 1:
        return (copies or [*found])[0]
    trained_with = _trained_with(path)
    return max(copies, key=lambda file: (file.stem == trained_with, file.stat().st_mtime_ns))


def _is_copy(file: Path) -> bool | None:
    """Whether a config is as mmengine copies it, values alone; None of what is no config of a network."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    assignments = [line for line in body if isinstance(line, ast.Assign)]
    names = {target.id for line in assignments for target in line.targets if isinstance(target, ast.Name)}
    has_base = "_base_" in names or any(isinstance(line, ast.With) for line in body)  # with read_base(): ...
    if not (has_base or "model" in names):
        return None
    return not has_base and len(assignments) == len(body)


def _trained_with(path: Path) -> str | None:
    """Its config's name without the suffix, as a checkpoint (of a work dir the newest) says it; None if it does not."""
    try:
        name = re.fullmatch(r"(.+)_\d{8}_\d{6}", load_file(find_checkpoint(path))["meta"]["experiment_name"])
    except (ValueError, LookupError, TypeError, OSError):  # damaged, or another program's
        return None
    return name and name[1]


def run_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about the run that wrote it; empty for files of other programs."""
    return checkpoint.get(RUN) or checkpoint.get("meta", {}).get(RUN) or {}


def run_record(folder: Path) -> dict[str, Any]:
    """What a work dir's ``run.json`` says; empty if there is none, or none of ours."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else {}


def start_of(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The checkpoint that a work dir's run went on from, if it has gone back to one.

    What lies in the folder is recorded by its name alone, so that it is found when the folder has been moved.
    """
    start = record.get(CONTINUES)
    return folder / start if start else None


def _position(path: Path) -> tuple[int, int]:
    try:
        meta = load_file(path)["meta"]  # what an iteration is may have changed in the run; not what an epoch is
        return int(meta["epoch"]), int(meta["iter"])
    except (ValueError, LookupError, TypeError, OSError):  # damaged, or another program's
        return sys.maxsize, 0
