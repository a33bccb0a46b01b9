"""Whole photos, upright, for all who look at them: evaluation, pictures, the statistics of a random backbone."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from slotcon_plugin.errors import UserError
from slotcon_plugin.photos.listing import printable
from slotcon_plugin.photos.photo import Photo, PhotoError, orientation_of

_LONGEST = 8  # times the short side


def read_photo(path: str | Path) -> np.ndarray:
    """An upright RGB photo; damaged JPEGs are taken as far as Pillow takes them, since what is asked for is this one.

    Args:
        path: of the file.

    Returns:
        (H, W, 3) uint8.

    Raises:
        PhotoError: the file cannot be read, or does not hold a photo that can be decoded; names the file.
    """
    try:
        photo = Photo(Path(path).read_bytes(), printable(path))
        return photo.orientation.turn(photo.decode(keep_damaged=True))
    except (PhotoError, OSError, MemoryError) as error:
        raise PhotoError(
            f"{printable(path)}: cannot be read as a photo: {str(error) or type(error).__name__}"
        ) from error


def upright_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of a photo as :func:`read_photo` gives it, from its header.

    Raises:
        PhotoError: the file cannot be read, or is not a photo; names the file.
    """
    try:
        with Image.open(path) as image:
            return image.size[::-1] if orientation_of(image)[0] else image.size
    except Exception as error:  # decoders raise whatever they please
        raise PhotoError(
            f"{printable(path)}: cannot be read as a photo: {str(error) or type(error).__name__}"
        ) from error


def require_whole(path: str | Path) -> None:
    """Find a photo that is cut short, as a copy that did not finish leaves it, where :func:`read_photo` would.

    Of thousands of photos in seconds: what ends as files of its format end counts as whole, and only others are
    decoded. Damage in the middle of a file is not looked for.

    Raises:
        PhotoError: it cannot be read; names the file.
    """
    if not _ends_as_it_should(Path(path)):
        read_photo(path)


def _ends_as_it_should(path: Path) -> bool:
    """False also of formats whose end says nothing, and of what programs have appended something to."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 8, 0))
            end = file.read()
    except OSError:
        return False
    if head.startswith(b"RIFF"):  # WebP's, which says how long it is
        return 8 + int.from_bytes(head[4:], "little") <= size
    return (head.startswith(b"\xff\xd8\xff") and end.endswith(b"\xff\xd9")) or (
        head.startswith(b"\x89PNG") and end.startswith(b"IEND")
    )


def read_photos(paths: Iterable[str | Path]) -> Iterator[tuple[int, np.ndarray]]:
    """Those of many photos that can be read, each with its place in ``paths``; the others are named in a warning, once.

    Args:
        paths: of the files.

    Raises:
        UserError: at the end, if none could be read.
    """
    reason = "there is none"
    found = False
    for index, path in enumerate(paths):
        try:
            pixels = read_photo(path)
        except PhotoError as error:
            reason = f"the last: {error}"
            _name_once(str(error))
            continue
        found = True
        yield index, pixels
    if not found:
        raise UserError(f"expected photos, not one can be read; {reason}")


def network_sides(height: int, width: int, short_side: int, multiple: int = 1) -> tuple[int, int]:
    """At which size a network sees a photo: the short side becomes ``short_side``, the shape stays.

    Of what is longer than eight times its short side (a line between two parts of a web page), the long side becomes
    eight times ``short_side`` instead: a photo of one row would otherwise take gigabytes.

    Args:
        height, width: of the photo.
        short_side: in pixels.
        multiple: both sides are rounded to multiples of this, at least one.
    """
    wanted, given = short_side, min(height, width)
    if max(height, width) > _LONGEST * given:
        wanted, given = _LONGEST * short_side, max(height, width)
    return tuple(max(1, round(side * wanted / given / multiple)) * multiple for side in (height, width))


@functools.lru_cache(maxsize=10_000)
def _name_once(message: str) -> None:
    print_log(f"photo left out: {message}", "current", logging.WARNING)
