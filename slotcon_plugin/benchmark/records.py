"""What a step has done: a record beside the outputs of each step, written when the step has ended.

A step is done when its record has the fingerprint of today's plan, its inputs and outputs are the files of the record
(sha256), and the steps it needs are done. Anything else is named with its reason and run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from slotcon_plugin.benchmark.step import Step
from slotcon_plugin.config import shipped
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import free_name, sha256_of, write_json
from slotcon_plugin.results import describe_config

RECORD = "step.json"
STARTED = "started.json"


def fingerprint(step: Step, work_dir: Path) -> str:
    """sha256 of everything that a step is asked to do: its command, its configs' contents, how its scenes are made, and
    the modules of one's own that its configs import.

    The number of GPUs is not included (:func:`request` adds it where it matters), nor are the locations of the work dir
    and package.
    """
    below = re.compile(rf"(^|=){re.escape(str(work_dir))}(?=/|$)")  # also after KEY=
    words = [below.sub(r"\1WORK", text).removeprefix(f"{shipped()}/") for text in step.command()[1:]]
    words += step.scenes
    asked: list[Any] = [words, [_content(path) for path in step.configs]]
    if own := {name: digest for path in step.configs for name, digest in _own_modules(path).items()}:
        asked.append(own)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@lru_cache
def _own_modules(config: str) -> dict[str, str]:
    """Module -> hash of its Python files, for what a config's ``custom_imports`` bring from outside this package."""
    try:
        cfg = _of_mmengine(Path(config))
    except ModuleNotFoundError:  # a framework's
        return {}
    imports = (cfg.get("custom_imports") if cfg else None) or {}
    names = imports.get("imports") or ()
    digests = {}
    for name in [names] if isinstance(names, str) else names:
        if name.split(".")[0] == "slotcon_plugin":
            continue
        try:
            spec = find_spec(name)
        except Exception:  # whatever the packages around it raise; the run will say so, if it needs the module
            continue
        folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
        files = sorted(file for folder in folders for file in folder.rglob("*.py"))
        if not files and spec and spec.has_location:
            files = [Path(spec.origin)]
        digests[name] = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return digests


@lru_cache
def _content(config: str) -> str:
    """A config with all it inherits, comments apart; of a framework that is not installed, the file as it is."""
    path = Path(config)
    try:
        if (cfg := _of_mmengine(path)) is not None:
            return describe_config(cfg)[1]
        bases = _yaml(path).get("_BASE_") or ()
        bases = [bases] if isinstance(bases, str) else bases
        return path.read_text(encoding="utf-8") + "".join(_content(str(path.parent / base)) for base in bases)
    except ModuleNotFoundError:
        return path.read_text(encoding="utf-8")
    except UserError:
        raise
    except Exception as error:  # whatever Python or YAML finds in it
        raise UserError(f"config {config} cannot be read: {type(error).__name__}: {error}") from error


def _of_mmengine(path: Path) -> Config | None:
    """A config as mmengine reads it; None for YAML of detectron2's, which has none of mmengine's own keys."""
    if path.suffix in (".yaml", ".yml") and not {"_base_", "custom_imports"} & set(_yaml(path)):
        return None
    return Config.fromfile(path, import_custom_modules=False)


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}


class _Loader(yaml.SafeLoader):
    """Which takes what detectron2's configs have evaluated, ``!!python/object/apply:eval [...]``, as it stands."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: f"{suffix} {node.value}")


def remembered_sha256(path: Path) -> str:
    """Of a file's content; remembered as long as size and time of change stay."""
    stat = path.stat()
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache
def _sha256(path: str, size: int, changed: int) -> str:
    return sha256_of(path)


def request(step: Step, work_dir: Path, gpus: int = 0) -> dict[str, Any]:
    """What the step would work on now, and on how many GPUs if the result depends on them.

    Raises:
        UserError: an input is not there.
    """
    for path in step.inputs:
        if not path.is_file():
            raise UserError(f"{step.name}: {path} does not exist")
    asked = {"fingerprint": fingerprint(step, work_dir), "inputs": [remembered_sha256(path) for path in step.inputs]}
    return asked | ({"gpus": _processes(gpus)} if step.batch_per_gpu else {})


def _processes(gpus: int) -> int:
    return max(gpus, 1)  # the CPU's one


def mark_started(step: Step, asked: dict[str, Any]) -> bool:
    """Prepare the folder; True if it holds an unfinished run of the very same step, which can be continued.

    What another plan left in the folder is not deleted but set aside under another name.
    """
    marker = step.folder / STARTED
    if read_json(marker) == asked:
        return True
    if step.folder.exists() and any(path.name != ".lock" for path in step.folder.iterdir()):
        step.folder.rename(free_name(step.folder, "old"))
    write_json(marker, asked)
    return False


def mark_done(step: Step, asked: dict[str, Any], seconds: float, resumed: bool = False) -> None:
    """Write the record. Raises RunFailedError when the step ended without its outputs.

    ``seconds`` are those of the last start; of a ``resumed`` step they say nothing about how long it takes.
    """
    for path in step.outputs:
        if not path.exists():
            raise RunFailedError(f"{step.name} ended without an error but left no {path}; its log: {log_file(step)}")
    files = {*step.outputs, *step.folder.glob("*.json")} - {step.folder / RECORD, step.folder / STARTED}
    made = {os.path.relpath(path, step.folder): remembered_sha256(path) for path in sorted(files) if path.is_file()}
    record = {"step": step.name, **asked, "outputs": made, "seconds": round(seconds, 1), "resumed": resumed}
    write_json(step.folder / RECORD, record)


def why_not_done(step: Step, work_dir: Path, gpus: int = 0) -> str | None:
    """None if the step's own record holds (those it needs apart), else the reason in words."""
    record = read_json(step.folder / RECORD)
    if record is None:
        return f"{RECORD} is damaged" if (step.folder / RECORD).exists() else "not run yet"
    if missing := [str(path) for path in step.outputs if not path.exists()]:
        return f"{missing[0]} is gone"
    if record.get("fingerprint") != fingerprint(step, work_dir):
        return "the plan, its config or code of your own has changed since"
    if step.batch_per_gpu and (then := record.get("gpus")) != (now := _processes(gpus)):
        return f"its batch follows the GPUs, {then} then and {now} now (--gpus)"
    if any(not path.is_file() for path in step.inputs):
        return "its checkpoint is gone"
    if record.get("inputs") != [remembered_sha256(path) for path in step.inputs]:
        return "its checkpoint has changed since"
    for name, expected in record.get("outputs", {}).items():
        path = step.folder / name
        if not path.is_file() or remembered_sha256(path) != expected:
            return f"{path} is not the file that the step left"
    return None


def ran_otherwise(steps: Iterable[Step], work_dir: Path) -> list[str]:
    """A line for each finished step whose command or config is another in today's plan."""
    records = {step: read_json(step.folder / RECORD) for step in steps}
    return [
        f"{step.name} ran with another command or config than the plan has now (another --set counts, too)"
        for step, record in records.items()
        if record and record.get("fingerprint") != fingerprint(step, work_dir)
    ]


def seconds_taken(step: Step) -> float | None:
    """Of a step that is done; None if it was resumed, so that nobody knows."""
    record = read_json(step.folder / RECORD) or {}
    return None if record.get("resumed") else float(record.get("seconds", 0.0))


def log_file(step: Step) -> Path:
    """Where a step's output goes: its folder's ``log.txt``, to which every start adds."""
    return step.folder / "log.txt"


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON object, None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
