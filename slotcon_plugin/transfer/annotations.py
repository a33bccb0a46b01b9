"""COCO's annotation files, as far as both frameworks' checks read them."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slotcon_plugin.errors import UserError

_SIZES = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}  # areas in pixels; a limit is of both


def category_names(path: Path) -> list[str]:
    """Names of the categories of a COCO annotation file, in the order of their ids.

    Raises:
        UserError: cut short, not JSON, without categories, or with names or ids of odd types.
    """
    return [category["name"] for category in sorted(read_categories(path)[0], key=lambda category: category["id"])]


def read_json(path: Path) -> Any:
    """Content of an annotation file that pycocotools, which opens it as text, can read, too.

    Raises:
        ValueError: it is no JSON, or in another encoding than UTF-8 without a byte order mark.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{error}. Save it as UTF-8 without a byte order mark") from error
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark. Save it as UTF-8 without a byte order mark")
    return json.loads(text)


def read_categories(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(categories in the file's order, annotations) of a COCO annotation file.

    Raises:
        UserError: as :func:`category_names`.
    """
    try:
        found = read_json(path)
        categories = found["categories"]
        if odd := [each["name"] for each in categories if not isinstance(each["name"], str)]:
            raise TypeError(f"a category's name has to be a text, got {reprlib.repr(odd[0])}")
        sorted(each["id"] for each in categories)  # of one type
        return categories, found.get("annotations", [])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is not a complete COCO annotation file: {reason}") from error


def make_judgeable(annotations: Iterable[dict[str, Any]]) -> None:
    """Number annotations from 1 and let them be no crowd where they do not say (or say null), in place.

    pycocotools takes a match with annotation 0 for none, and asks every annotation for ``iscrowd``. The index of a
    loaded file has to be made again.
    """
    for number, annotation in enumerate(annotations, start=1):
        annotation |= {"id": number, "iscrowd": int(annotation.get("iscrowd") or 0)}


def measurable_sizes(path: Path) -> list[str]:
    """Of which sizes pycocotools finds objects to judge in a file: ``s`` (up to 32 x 32 pixels), ``m``, ``l``.

    Raises:
        UserError: as :func:`category_names`.
    """
    areas = [one.get("area", 0) for one in read_categories(path)[1] if not one.get("iscrowd")]
    return [size for size, (low, high) in _SIZES.items() if any(low <= area <= high for area in areas)]


def check_for_mmdet(path: Path, classes: Sequence[str], judged: bool) -> None:
    """Labels of a file will be those of a config: mmdet numbers them in the order of the file's categories.

    Args:
        path: of an annotation file of COCO's form.
        classes: of the config, in the order of its heads' outputs.
        judged: whether pycocotools takes the file for the truth, and asks more of it.

    Raises:
        UserError: other categories or another order, annotations that cannot be judged, or no whole file.
    """
    categories, annotations = read_categories(path)
    names = [category["name"] for category in categories]
    if foreign := sorted(set(names) - set(classes)):
        raise UserError(
            f"class mismatch: {path} has categories {foreign[:5]} that are not among the config's {len(classes)} "
            "classes; set metainfo.classes of the data sets and num_classes of the heads"
        )
    for place, (name, expected) in enumerate(zip_longest(names, classes)):
        if name != expected:
            raise UserError(
                f"class mismatch: categories[{place}] of {path} is {name!r}, class {place} of the config is "
                f"{expected!r}, and mmdet gives labels in the order of the file: it has to list all {len(classes)} "
                "classes, in the config's order"
            )
    if judged and (odd := [one for one in annotations if not one.get("id") or one.get("iscrowd") not in (0, 1)]):
        lacking = "no 'iscrowd' of 0 or 1" if odd[0].get("id") else "the id 0, which pycocotools takes for no match"
        raise UserError(
            f"{path}: {len(odd)} of {len(annotations)} annotations cannot be judged, the first has {lacking}. Number "
            "them from 1 and add iscrowd: 0, or let val_evaluator.type and test_evaluator.type be OwnCocoMetric"
        )
