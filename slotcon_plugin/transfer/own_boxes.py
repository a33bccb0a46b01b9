"""Annotation files of one's own, of COCO's form: whole, without contradictions, and made for the photos beside them.

mmdet, detectron2 and pycocotools read such files without a question. What does not fit they drop or misplace without a
word, or it stops them in the middle of a run.
"""

from __future__ import annotations

import logging
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import PhotoError, require_whole, upright_size
from slotcon_plugin.transfer.annotations import read_json

_NEEDED = {
    "categories": ("id", "name"),
    "images": ("file_name", "id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
}
_TYPES = {  # of what is needed
    **dict.fromkeys(("name", "file_name"), ((str,), "a text")),
    **dict.fromkeys(("id", "image_id", "category_id"), ((int, float, str), "a number or a text")),
    **dict.fromkeys(("width", "height", "area"), ((int, float), "a finite number")),
    "bbox": ((list,), "a list of four finite numbers: x, y, width, height"),
}


def read_own_boxes(path: Path, photos: Path, area: bool = True) -> dict[str, Any]:
    """Content of an annotation file that can be trained on as it is.

    Args:
        path: of a file that is there.
        photos: folder that its ``file_name`` are in.
        area: whether every annotation has to have one: pycocotools and mmdet read it, detectron2's training does not.

    Raises:
        UserError: the file is not whole, or contradicts itself or the photos; says where.
    """
    try:
        found = read_json(path)
        for part, needed in _NEEDED.items():
            _check_entries(found, part, [key for key in needed if area or key != "area"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is not a complete COCO annotation file: {reason}") from error
    _check_references(path, found)
    _check_photos(path, found["images"], photos)
    if not found["images"] or not found["annotations"]:
        raise UserError(f"{path} has {len(found['images'])} photos and {len(found['annotations'])} annotations")
    _check_boxes(path, found, area)
    _check_crowds(path, found["annotations"])
    return found


def has_outline(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation has a polygon with a point in it, or run lengths."""
    outline = annotation.get("segmentation")
    return any(outline) if isinstance(outline, list) else bool(outline)


def _check_entries(found: dict[str, Any], part: str, needed: Sequence[str]) -> None:
    """Raises what :func:`read_own_boxes` makes a sentence of."""
    entries = found[part]
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise TypeError(f"{part} has to be a list of objects")
    lacking = [index for index, entry in enumerate(entries) if any(entry.get(key) is None for key in needed)]
    if lacking:
        first = entries[lacking[0]]
        keys = [key for key in needed if first.get(key) is None]
        area = " (area: width x height of the bbox where there is no outline)" if "area" in keys else ""
        raise ValueError(
            f"{part}[{lacking[0]}] (id {first.get('id')}) has no {', '.join(map(repr, keys))}; {len(lacking)} of "
            f"{len(entries)} {part} are incomplete. Each needs {', '.join(needed)}: add them{area}, or export the "
            "labels again"
        )
    for index, entry in enumerate(entries):
        for key in needed:
            kinds, expected = _TYPES[key]
            fits = _is_box(entry[key]) if key == "bbox" else isinstance(entry[key], kinds) and _is_finite(entry[key])
            if not fits or isinstance(entry[key], bool):
                raise TypeError(
                    f"{part}[{index}] (id {entry['id']}) has {reprlib.repr(entry[key])} as {key!r}: expected {expected}"
                )


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(number, (int, float)) and _is_finite(number) for number in value)
    )


def _is_finite(value: Any) -> bool:
    """Python's JSON knows NaN and Infinity; frameworks compare them with what they please."""
    return not isinstance(value, float) or math.isfinite(value)


def _check_references(path: Path, found: Mapping[str, Any]) -> None:
    """Every id is of one entry, and every annotation of a photo and a category that are there."""
    for part in _NEEDED:
        counts = Counter(entry["id"] for entry in found[part])
        if twice := [each for each, count in counts.items() if count > 1]:
            raise UserError(
                f"{path}: {len(twice)} ids are of several {part}, the first is {twice[0]!r}: annotations would go to "
                "the wrong ones. Of two exports that were put together, number one anew"
            )
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in found[part]}
        if odd := [annotation for annotation in found["annotations"] if annotation[key] not in known]:
            spelled = str(odd[0][key]) in map(str, known)
            text = ": a number here and a text there, or the other way round" if spelled else ""
            raise UserError(
                f"{path}: {len(odd)} of {len(found['annotations'])} annotations have a {key} that no entry of {part} "
                f"has, the first is {odd[0][key]!r} of annotation {odd[0]['id']!r}{text}"
            )


def _check_photos(path: Path, images: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Annotation files travel without their photos, or with the paths and sizes of others."""
    names = [image["file_name"] for image in images]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"{len(missing)} of {len(names)} photos that {path} names are not there; the first is "
            f"{folder / missing[0]}. file_name has to be a path below {folder}"
        )
    sizes, broken = {}, []
    for name in names:
        try:
            sizes[name] = upright_size(folder / name)
            require_whole(folder / name)
        except PhotoError as error:
            broken.append(error)
    if broken:
        raise UserError(
            f"{len(broken)} of {len(names)} photos that {path} names cannot be read; the first: {broken[0]}. Copy them "
            "anew, or take them and their annotations out"
        )
    for image in images:
        size = sizes[image["file_name"]]
        told = image["width"], image["height"]
        if told != size:
            as_stored = "; the labels are of the photo as it is stored, before EXIF or XMP turns it upright"
            turned = as_stored if told == size[::-1] else ""
            raise UserError(
                f"{path} gives {folder / image['file_name']} as {told[0]} x {told[1]} pixels, and it has {size[0]} x "
                f"{size[1]}{turned}: its boxes would lie elsewhere. Export the labels for these photos"
            )


def _check_boxes(path: Path, found: Mapping[str, Any], area: bool) -> None:
    """Boxes of nothing, of less than a pixel and outside their photo are no use."""
    annotations = found["annotations"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in found["images"]}
    dropped = [
        one
        for one in annotations
        if not _is_inside(one["bbox"], *sizes[one["image_id"]]) or (area and one["area"] <= 0)
    ]
    if not dropped:
        return
    told = f" and area {dropped[0]['area']}" if area else ""
    text = (
        f"{len(dropped)} of {len(annotations)} annotations of {path} are of no area, of less than a pixel or outside "
        f"their photo; the first has bbox {dropped[0]['bbox']}{told}"
    )
    if len(dropped) == len(annotations):
        raise UserError(f"{text}. Expected x, y, width, height in pixels, and the area that they enclose")
    print_log(
        f"{text}: mmdet leaves them out, detectron2 those that are empty inside the photo", "current", logging.WARNING
    )


def _is_inside(box: Sequence[float], width: float, height: float) -> bool:
    x, y, w, h = box
    return min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0) and w >= 1 and h >= 1


def _check_crowds(path: Path, annotations: Sequence[Mapping[str, Any]]) -> None:
    """A box of a crowd makes no figure worse, and none better: a file of nothing else would train nothing."""
    of_all = f"of {len(annotations)} annotations of {path}"
    if odd := [one for one in annotations if one.get("iscrowd") not in (0, 1, None)]:
        raise UserError(
            f"{len(odd)} {of_all} have an iscrowd that is neither 0 nor 1, the first is {odd[0]['iscrowd']!r} of "
            f"annotation {odd[0]['id']!r}"
        )
    if not (crowds := sum(bool(one.get("iscrowd")) for one in annotations)):
        return
    text = (
        f"{crowds} {of_all} have iscrowd 1: their boxes are neither learned nor judged. A box of a single object needs "
        "iscrowd 0"
    )
    if crowds == len(annotations):
        raise UserError(text)
    print_log(text, "current", logging.WARNING)
