"""Which files of a folder are photos, whatever else lies in it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from PIL import features

from slotcon_plugin.errors import UserError

_OPTIONAL_SUFFIXES: tuple[str, ...] = ()
if "avif" in features.modules and features.check("avif"):
    _OPTIONAL_SUFFIXES += (".avif",)
with contextlib.suppress(ImportError):  # a plugin that people who have such photos install
    import pillow_heif

    pillow_heif.register_heif_opener()
    _OPTIONAL_SUFFIXES += (".heic", ".heif")

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", *_OPTIONAL_SUFFIXES)
"""Endings of what is read, in lower case: what Pillow reads as it is installed here."""

# Pictures that a user may expect to be read, and that are not; raw formats of cameras among them.
_OTHER_PICTURES = {
    *{".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".psd", ".svg", ".tga"},
    *{".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"},
} - set(PHOTO_SUFFIXES)

# Folders of masks, by the folder of photos that they lie beside: annotated data sets are a source of photos, too.
_MASKS = {
    "images": {"annotations", "instances", "labels", "masks"},
    "leftImg8bit": {"gtFine", "gtCoarse"},
    "JPEGImages": {"SegmentationClass", "SegmentationClassAug", "SegmentationObject"},
    "train2017": {"stuffthingmaps"},
}


def list_photos(root: str | Path) -> list[str]:
    """All photos in a folder and the folders below it, in a fixed order.

    Hidden files and folders are left out without a word. Pictures of formats that are not read, links that lead
    nowhere, folders that may not be opened and folders of masks beside their photos' (``annotations`` beside
    ``images``) are left out, counted, and named by kind in a warning. A folder that links lead to twice, or back to, is
    walked once.

    Args:
        root: the folder.

    Returns:
        Names relative to ``root``, sorted: those of a folder before those of the folders in it. Names with bytes
        that are not UTF-8 hold them as ``os.fsdecode`` does.

    Raises:
        UserError: this is no folder, or there is no photo in it.
    """
    root = os.fspath(root)
    if not os.path.isdir(root):
        raise UserError(f"{printable(root)} is not a folder (seen from {os.getcwd()}); expected a folder of photos")
    names: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(os.path.join(root, folder))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            photos, folders = _scan(os.path.join(root, folder), left_out)
        except OSError as error:
            left_out[f"folders that cannot be opened ({error.strerror})"] += 1
            continue
        for beside in _MASKS.keys() & set(folders):
            for masks in sorted(_MASKS[beside].intersection(folders)):
                folders.remove(masks)
                left_out[f"folders of masks ({masks} beside {beside})"] += 1
        names += [os.path.join(folder, name) for name in sorted(photos)]
        pending += [os.path.join(folder, name) for name in sorted(folders, reverse=True)]
    rest = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    if not names:
        raise UserError(
            f"folder {printable(root)} has no photo in it; expected files ending in {', '.join(PHOTO_SUFFIXES)}"
            + (f"; found {rest}" if rest else "")
        )
    if rest:
        hint = "; `pip install pillow-heif` for .heic and .heif" if left_out[".heic"] + left_out[".heif"] else ""
        print_log(f"folder {printable(root)}: left out {rest}{hint}", "current", logging.WARNING)
    return names


def _scan(path: str, left_out: Counter[str]) -> tuple[list[str], list[str]]:
    """Names of the photos and of the folders in one folder; scandir knows one from the other without a stat each."""
    photos, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            try:
                if suffix in PHOTO_SUFFIXES and entry.is_file():
                    photos.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
                elif suffix in PHOTO_SUFFIXES:
                    left_out["links that lead nowhere or special files"] += 1
                elif suffix in _OTHER_PICTURES:
                    left_out[suffix] += 1
            except OSError:  # a link to itself
                left_out["links that lead nowhere or special files"] += 1
    return photos, folders


def collect_photos(paths: Sequence[str | Path], limit: int | None = None) -> list[str]:
    """Files as they are named, folders replaced by the photos in them; ``limit`` of them, evenly spaced.

    What is named twice, by itself and by a folder or by two folders, is there once.

    Raises:
        UserError: a path does not exist, a folder holds no photo, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"the number of photos must be at least 1, got {limit}")
    found = []
    for path in map(os.fspath, paths):
        if os.path.isdir(path):
            found += [os.path.join(path, name) for name in list_photos(path)]
        elif os.path.isfile(path):
            found.append(path)
        else:
            raise UserError(f"{printable(path)} does not exist; expected a photo or a folder of photos")
    if len(paths) > 1:
        once: dict[str, str] = {}
        for path in found:
            once.setdefault(os.path.realpath(path), path)
        found = list(once.values())
    return [found[i] for i in evenly_spaced(len(found), limit)]


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the indices 0 .. count - 1, first and last among them; all of them for None."""
    if limit is None or limit >= count:
        return list(range(count))
    return np.linspace(0, count - 1, limit).round().astype(int).tolist()


def printable(path: str | Path) -> str:
    """A path as one line of valid text: control characters, and bytes that are not UTF-8, escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
