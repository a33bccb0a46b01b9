"""COCO's annotation files, as far as both frameworks' checks read them."""

from __future__ import annotations

import json
from pathlib import Path

from slotcon_plugin.errors import UserError


def category_names(path: Path) -> list[str]:
    """Names of the categories of a COCO annotation file, in the order of their ids.

    Raises:
        UserError: cut short, not JSON, or without categories.
    """
    try:
        categories = json.loads(path.read_bytes())["categories"]
        return [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is no whole annotation file of COCO's form: {reason}") from error
