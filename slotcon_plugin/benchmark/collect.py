"""Result files below folders: which of them count."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotcon_plugin.benchmark.records import RECORD, STARTED, read_json, remembered_sha256
from slotcon_plugin.results import FILE_NAME, read_result


@dataclass(frozen=True)
class ResultFile:
    """A result file that has been read.

    Attributes:
        folder: the first on its way from the one that was searched: in a benchmark's work dir the key of its task.
    """

    path: Path
    result: dict[str, Any]
    folder: str = ""


def collect(folders: Iterable[str | Path], steps: Collection[Path] | None = None) -> tuple[list[ResultFile], list[str]]:
    """All result files below folders, and a line for each file that is ignored, with its reason.

    A benchmark's work dir gives the files that its steps' records name, unchanged since; elsewhere every ``*.json``
    counts. ``steps``: folders of the steps of a work dir that count; None = of all that it has.
    """
    runs, problems = [], []
    for folder in map(Path, folders):
        records = {path.parent: read_json(path) or {} for path in sorted(folder.rglob(RECORD))}
        started = {path.parent for path in folder.rglob(STARTED)}
        for path in sorted(folder.rglob("*.json")):
            if path.name in (RECORD, STARTED) or _set_aside(path, folder):
                continue
            step = next((parent for parent in path.parents if parent in started), None)
            if step and steps is not None and step not in steps:
                if path.name.endswith(FILE_NAME) or path.parent == step:
                    problems.append(f"ignored {path}: the plan has no such step now, or has changed since")
                continue
            if step:
                known = records.get(step, {}).get("outputs", {})
                expected = known.get(str(path.relative_to(step)))
                if expected is None and not path.name.endswith(FILE_NAME):
                    continue  # a log of the run, or a result file of a step that has not ended
                if expected is None or expected != remembered_sha256(path):
                    why = "its step has not ended" if step not in records else "not the file that its step left"
                    problems.append(f"ignored {path}: {why}")
                    continue
                if "schema" not in (read_json(path) or {}) and not path.name.endswith(FILE_NAME):
                    continue  # notes of the run: run.json, detectron2's metrics.json
            elif started:
                problems.append(f"ignored {path}: no step of this work dir left it")
                continue
            elif path.name == f"test_{FILE_NAME}" and path.with_name(FILE_NAME).is_file():
                problems.append(f"ignored {path}: a test of the run whose {FILE_NAME} lies beside it")
                continue
            try:
                runs.append(ResultFile(path, read_result(path), path.relative_to(folder).parts[0]))
            except ValueError as error:
                problems.append(f"ignored {path}: {error}")
    return runs, problems


def _set_aside(path: Path, folder: Path) -> bool:
    """Whether it lies in a folder that a later run has set aside; a searched one that was counts."""
    return any(re.search(r"\.old\d+$", part) for part in path.relative_to(folder).parts)
