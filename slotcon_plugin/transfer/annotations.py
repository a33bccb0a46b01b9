"""COCO's annotation files, as far as both frameworks' checks read them."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path

from slotcon_plugin.errors import UserError


def category_names(path: Path) -> list[str]:
    """Names of the categories of a COCO annotation file, in the order of their ids.

    Raises:
        UserError: cut short, not JSON, without categories, or with names or ids of odd types.
    """
    try:
        categories = json.loads(path.read_bytes())["categories"]
        names = [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
        if odd := [name for name in names if not isinstance(name, str)]:
            raise TypeError(f"a category's name has to be a text, got {reprlib.repr(odd[0])}")
        return names
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is no whole annotation file of COCO's form: {reason}") from error
