"""Result files: the one form in which a run leaves its figures, and from which every table is made.

    {"schema": 1, "task": "mmseg_camvid_fcn", "metrics": {"mIoU": 22.5}, "pretraining": "slotcon", "seed": 0,
     "config": "configs/transfer/mmseg/fcn_r18_camvid.py", "config_sha256": "...",
     "backbone_sha256": "..." or null for random initialisation,
     "versions": {"python": "3.11.7", "torch": "2.11.0", ...}, "wall_time_s": 812.4, "command": "..."}

Further keys are allowed and kept; the ones above always are there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text

SCHEMA = 1
FILE_NAME = "result.json"
RANDOM = "random"
"""Name of weights by which nothing was learned; ``random_plain`` and the like differ in how they are drawn."""

# Distributions whose version can change a figure; the ones not installed are left out.
_DISTRIBUTIONS = (
    *("slotcon_plugin", "torch", "torchvision", "timm", "numpy", "pycocotools", "detectron2", "sal-detectron2"),
    *("mmengine", "mmcv", "mmdet", "mmsegmentation"),
    *("onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "onedl-mmsegmentation"),  # same import names
)
# Where and how a run goes, not what it does; the seed is a field of its own.
_NOT_THE_RECIPE = ("work_dir", "launcher", "resume", "load_from", "randomness")
LOADED = "a whole model"
"""Stands in a recipe for the weights of all of its model, wherever their file lies."""
_FIELDS: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "metrics": (dict,),
    "pretraining": (str,),
    "seed": (int,),
    "config": (str,),
    "config_sha256": (str,),
    "backbone_sha256": (str, type(None)),
    "versions": (dict,),
    "wall_time_s": (int, float),
    "command": (str,),
}


def is_random(pretraining: str) -> bool:
    """Whether a pretraining is called so because there was none."""
    return pretraining.split("_")[0] == RANDOM


def write_result(
    path: str | Path,
    *,
    task: str,
    metrics: Mapping[str, float],
    pretraining: str,
    config: Any,
    backbone_sha256: str | None,
    seed: int,
    wall_time_s: float,
    config_name: str | None = None,
    **extra: Any,
) -> Path:
    """Write a result file, whole or not at all (temporary file, then rename).

    Args:
        path: the file, or the folder that gets a ``result.json``.
        task: what was measured, the column of a table: ``mmdet_coco_mask_rcnn_r50_fpn_1x``.
        metrics: name -> finite number, in the unit in which it is reported (AP and mIoU in percent).
        pretraining: what the backbone comes from, the row of a table: ``slotcon``, ``vader``, ``random``.
        config: the config as run: a path, or an mmengine ``Config`` / detectron2 ``CfgNode`` with its overrides.
        backbone_sha256: of the backbone at the start; None = random initialisation, or not known.
        seed: of the run.
        wall_time_s: seconds, training and evaluation.
        config_name: the config's path, where ``config`` does not know it (detectron2's does not).
        extra: further facts, JSON-serialisable; they may not carry one of the schema's names.

    Returns:
        The path written.

    Raises:
        ValueError: a metric is no finite number, a field has the wrong type, or ``extra`` shadows a field.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    name, text = describe_config(config)
    result = {
        "schema": SCHEMA,
        "task": task,
        "metrics": {key: float(value) for key, value in metrics.items()},
        "pretraining": pretraining,
        "seed": int(seed),
        "config": _portable(config_name or name),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "backbone_sha256": backbone_sha256,
        "versions": versions(),
        "wall_time_s": round(float(wall_time_s), 3),
        "command": _command(sys.argv),
    }
    if shadowed := sorted(set(extra) & set(result)):
        raise ValueError(f"extra facts of a result may not be named {shadowed}: the schema has fields of that name")
    result |= extra
    if problem := _problem(result):
        raise ValueError(f"{path} {problem}")
    write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return path


def _command(words: Sequence[str]) -> str:
    """What was typed: of a process among several, what started them all."""
    if "--launcher" not in words or words[words.index("--launcher") + 1 :][:1] != ["pytorch"]:
        return shlex.join(["python", *words])
    at = words.index("--launcher")
    script, *rest = [*words[:at], *words[at + 2 :]]
    if Path(script).name != "train.py" or not rest:
        return shlex.join(["python", script, *rest])
    config, *rest = rest
    return shlex.join(["bash", "tools/dist_train.sh", config, os.environ.get("LOCAL_WORLD_SIZE", "1"), *rest])


def read_result(path: str | Path) -> dict[str, Any]:
    """Read and check a result file.

    Raises:
        UserError: not JSON, of another schema, or a field is missing or of the wrong type; the file is named.
    """
    path = Path(path)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON (cut short, or another kind of file): {error}") from error
    if problem := _problem(result):
        raise UserError(f"{path} {problem}")
    return result


def describe_config(config: Any) -> tuple[str, str]:
    """(name, canonical text) of a config; equal texts = equal configs, wherever they lie and wherever they run.

    A path stands for its bytes. An mmengine ``Config`` and a detectron2 ``CfgNode`` stand for their contents, which
    include what inheritance and command-line overrides brought, but neither the seed nor where the run goes and where
    its first weights lie.
    """
    if isinstance(config, (str, Path)):
        return str(config), Path(config).read_text(encoding="utf-8")
    if hasattr(config, "pretty_text"):  # mmengine
        content = {key: value for key, value in config.to_dict().items() if key not in _NOT_THE_RECIPE}
        if config.get("load_from") and not config.get("resume"):  # what it begins with, wherever that file lies
            content["load_from"] = LOADED
        return str(config.filename), json.dumps(content, sort_keys=True, default=str)
    if hasattr(config, "clone"):  # detectron2
        content = config.clone()
        content.defrost()
        content.OUTPUT_DIR, content.SEED = "", -1
        if content.MODEL.WEIGHTS != LOADED:  # a backbone's; what that is has fields of its own
            content.MODEL.WEIGHTS = ""
        return "", content.dump()
    raise ValueError(f"config must be a path, an mmengine Config or a detectron2 CfgNode, got {type(config).__name__}")


def _portable(name: str) -> str:
    """A config's path from ``configs/`` on, so that a result file reads the same on every machine."""
    parts = Path(name).parts
    return "/".join(parts[parts.index("configs") :]) if "configs" in parts else Path(name).name


def versions() -> dict[str, str]:
    """Version of Python and of every installed package that can change a figure."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _problem(result: Any) -> str | None:
    """Why this is no result, to be said after the file's name; None if it is one."""
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        found = result.get("schema") if isinstance(result, dict) else type(result).__name__
        return f"is not a result file of schema {SCHEMA} (found: {found})"
    for field, types in _FIELDS.items():
        if field not in result:
            return f"has no field '{field}'"
        value = result[field]
        if not isinstance(value, types) or isinstance(value, bool):
            return f"has a wrong field: '{field}' must be {' or '.join(t.__name__ for t in types)}, got {value!r}"
    if not result["metrics"]:
        return "has no figures: 'metrics' is empty, the run measured nothing"
    for name, value in result["metrics"].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return f"has a wrong figure: metric '{name}' must be a finite number, got {value!r}"
    return None
