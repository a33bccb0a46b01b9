"""Names of the photos in a COCO annotation file, without the annotations, which are twenty times as large."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import printable

_ARRAY = re.compile(rb'"images"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
_BLOCK = 2**22  # bytes read at a time
_OVERLAP = 256  # bytes in which the key, the colon and the bracket lie


def read_file_names(path: str | Path) -> list[str]:
    """``file_name`` of each entry of the file's ``images``, in their order.

    The file is passed through once and only that array is parsed, entry by entry: the 450 MB of instances_train2017
    cost a second and 35 MB, where a full parse takes 3 GB in every process of a run.

    Args:
        path: JSON in UTF-8, the array anywhere among its top-level keys.

    Raises:
        UserError: the file cannot be read, has no such array, or an entry of it has no name.
    """
    try:
        with open(path, "rb") as file:
            starts = list(_array_starts(file))
            if len(starts) > 1:  # which of them is at the top, only a full parse can tell
                file.seek(0)
                names = [image["file_name"] for image in json.load(file)["images"]]
            else:
                names = [image["file_name"] for start in starts for image in _array_entries(file, start)]
        if not starts or not all(isinstance(name, str) and "\0" not in name for name in names):
            raise ValueError("expected a list `images` whose entries have a `file_name`")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{printable(path)} is not a whole COCO annotation file: {error!r}") from error
    return names


def _array_starts(file: BinaryIO) -> Iterator[int]:
    """Where the file has an array under a key ``images``: offset of the first byte after the bracket."""
    window, offset, last = b"", 0, -1
    while block := file.read(_BLOCK):
        window += block
        if b'"images"' in window:
            for found in _ARRAY.finditer(window):
                if offset + found.end() > last:  # not the one that the last window ended with
                    last = offset + found.end()
                    yield last
        offset += max(0, len(window) - _OVERLAP)
        window = window[-_OVERLAP:]


def _array_entries(file: BinaryIO, start: int) -> Iterator[dict]:
    """Entries of a JSON array that begins at ``start``, read as far as the array goes."""
    file.seek(start)
    to_text = codecs.getincrementaldecoder("utf-8")()
    parse = json.JSONDecoder().raw_decode
    text, at = "", 0
    while True:
        at = _BETWEEN.match(text, at).end()
        if text[at : at + 1] == "]":
            return
        try:
            entry, at = parse(text, at)
        except json.JSONDecodeError:
            # The entry goes on in the next block. Blocks grow, so that an entry without an end is not read for ever.
            block = file.read(max(_BLOCK, len(text) - at))
            if not block:
                raise
            text, at = text[at:] + to_text.decode(block), 0
        else:
            yield entry
