"""Files of one JSON object a line, which survive being cut off in the middle of a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file; a last line that was cut off is left out.

    Raises:
        ValueError: the file is missing, or a line other than the last is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; expected a file with one JSON object a line")
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no newline after it: the writer was stopped here
                break
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}")
        records.append(record)
    return records


def keep_json_lines(path: str | Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Leave only the wanted objects in a file, in one step; a file that is not there stays so."""
    path = Path(path)
    if not path.exists():
        return
    kept = [record for record in read_json_lines(path) if wanted(record)]
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("".join(_line(record) for record in kept), encoding="utf-8")
    os.replace(temporary, path)


def append_json_line(path: str | Path, record: dict[str, Any]) -> None:
    """Add one object at the end of a file. NaN and infinity, which JSON has no word for, become null."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(_line(record))


def _line(record: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
