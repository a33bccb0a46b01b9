"""Files of one JSON object a line, which survive being cut off in the middle of a line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text

HEALTH_FILE = "health.jsonl"
"""In a work dir: the reports of :class:`~slotcon_plugin.engine.health.SlotHealthHook`."""


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file; a last line that was cut off is left out, and zeros that a power cut has left.

    Raises:
        UserError: the file is missing, or a line other than the last is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a file with one JSON object a line")
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parsed(line)
        if record is not None:
            records.append(record)
        elif line.strip(b"\0 \t\r") and number < len(lines):  # the last has no newline: its writer was stopped here
            raise UserError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}")
    return records


def rewrite_json_lines(path: str | Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Replace each object of a file by what ``change`` gives (None: by nothing), in one step.

    Lines that cannot be read are dropped; a file that is not there stays so.
    """
    path = Path(path)
    if not path.exists():
        return
    changed = [change(record) for line in path.read_bytes().split(b"\n") if (record := _parsed(line)) is not None]
    write_text(path, "".join(_line(record) for record in changed if record is not None))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def append_json_line(path: str | Path, record: dict[str, Any]) -> None:
    """Add one object at the end of a file. NaN and infinity, which JSON has no word for, become null."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(_line(record))


def _line(record: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
