"""Photo files to pixels: no more of them than needed, upright, RGB, whatever the format."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass

import numpy as np
import simplejpeg
from mmengine.logging import print_log
from PIL import Image, ImageFile, UnidentifiedImageError

from slotcon_plugin.errors import UserError

Box = tuple[float, float, float, float]

EXIF_ORIENTATION = 0x0112

MAX_PIXELS = 2**27
"""Photos of more pixels than this (11,585 x 11,585) are refused before any decoder allocates memory for them."""

# One of these is in the header of every JPEG that says how it stands.
_EXIF, _XMP = b"Exif\x00\x00", b"tiff:Orientation"

_DARK = 2**12  # a 16-bit picture of smaller values is nearly black by its upper byte
_dark_told = False  # whether this process has named a dark one

# How the stored pixels become the upright photo: swap the axes, then mirror in x, then in y (EXIF 2.32, table 6).
_UPRIGHT = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


class PhotoError(UserError):
    """A file that does not hold a photo that can be decoded whole; the message says why."""


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become the upright photo of ``width`` x ``height``."""

    width: int
    height: int
    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def to_stored(self, box: Box) -> Box:
        """A box of the upright photo, in stored pixels."""
        x0, y0, x1, y1 = self._mirror(box)
        return (y0, x0, y1, x1) if self.transpose else (x0, y0, x1, y1)

    def to_upright(self, box: Box) -> Box:
        """Inverse of :meth:`to_stored`."""
        x0, y0, x1, y1 = box
        return self._mirror((y0, x0, y1, x1) if self.transpose else (x0, y0, x1, y1))

    def turn(self, pixels: np.ndarray) -> np.ndarray:
        """Stored pixels (H, W, C) of the whole photo as they stand upright."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])

    def _mirror(self, box: Box) -> Box:
        x0, y0, x1, y1 = box
        if self.mirror_x:
            x0, x1 = self.width - x1, self.width - x0
        if self.mirror_y:
            y0, y1 = self.height - y1, self.height - y0
        return x0, y0, x1, y1


class Photo:
    """The bytes of a photo file, whose header has been read.

    Attributes:
        stored_size: (width, height) of the pixels as they lie in the file.
        orientation: size of the upright photo and how its stored pixels are turned.
        reductions: factors by which :meth:`decode` can shrink at no cost, largest first, always ending in 1.

    Args:
        data: content of the file.
        name: what to call it in a warning.

    Raises:
        PhotoError: if this is not a photo, or one of more than ``MAX_PIXELS``.
    """

    def __init__(self, data: bytes, name: str = "without a name") -> None:
        self._data, self._name = data, name
        self._image: Image.Image | None = None
        self.reductions: tuple[int, ...] = (1,)
        turn = _UPRIGHT[1]
        try:
            if data[:3] == b"\xff\xd8\xff":
                height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
                if space in ("YCbCr", "Gray", "RGB"):
                    # Other factors (n/8) exist, but only powers of two have fast inverse transforms.
                    self.reductions = (8, 4, 2, 1)
                else:
                    self._image = self._open()
                end = _start_of_scan(data)
                if any(data.find(mark, 0, end) >= 0 for mark in (_EXIF, _XMP)):  # the others need no second decoder
                    turn = orientation_of(self._open())
            else:
                self._image = self._open()
                width, height = self._image.size
                turn = orientation_of(self._image)
        except Exception as error:  # decoders raise whatever they please
            raise PhotoError(f"no readable header: {_reason(error)}") from error
        if width * height > MAX_PIXELS:
            raise PhotoError(f"{width} x {height} are more than {MAX_PIXELS:,} pixels")
        self.stored_size = (width, height)
        self.orientation = Orientation(*(self.stored_size[::-1] if turn[0] else self.stored_size), *turn)

    def decode(self, reduction: int = 1, keep_damaged: bool = False) -> np.ndarray:
        """Stored (not yet upright) pixels, RGB.

        Args:
            reduction: one of ``self.reductions``. Stored pixel x becomes exactly x / reduction: a JPEG of 8 x 8
                blocks shrinks block by block. A last partial pixel (beyond width / reduction) is padding.
            keep_damaged: whether to take a JPEG that libjpeg warns about. Most of these are partly grey or shifted;
                a few differ from the whole file by some stray bytes alone.

        Returns:
            (ceil(height / reduction), ceil(width / reduction), 3) uint8.

        Raises:
            PhotoError: if the file is damaged or of a kind that has no RGB picture.
        """
        try:
            try:
                if self._image is None:
                    return self._decode_jpeg("RGB", reduction)
                if self._image.format == "JPEG" and not keep_damaged:
                    self._decode_jpeg("CMYK", 8)  # only to be warned: Pillow, which knows the colours, does not
            except ValueError:  # libjpeg's warnings count as errors here, and not for Pillow
                if not keep_damaged:
                    raise
            image = self._image or self._open()
            return _to_rgb(image.reduce(reduction) if reduction > 1 else image, self._name)
        except Exception as error:
            raise PhotoError(f"cannot be decoded: {_reason(error)}") from error

    def _decode_jpeg(self, space: str, reduction: int) -> np.ndarray:
        if reduction == 1:
            return simplejpeg.decode_jpeg(self._data, space)
        width, height = (-(-side // reduction) for side in self.stored_size)
        return simplejpeg.decode_jpeg(self._data, space, min_height=height, min_width=width)

    def _open(self) -> Image.Image:
        return Image.open(io.BytesIO(self._data))


def orientation_of(image: Image.Image) -> tuple[bool, bool, bool]:
    """Whether to swap the axes of stored pixels, then mirror them in x, then in y, for the upright picture.

    As EXIF says; where it says nothing, as XMP does. The image is one whose pixels have not been loaded.
    """
    xmp = image.info.get("xmp", b"")
    if image.format == "TIFF":
        if EXIF_ORIENTATION in image.tag_v2:  # Pillow turns these itself, and their size is that of the turned picture
            return _UPRIGHT[1]
        image.info.pop("xmp", None)  # by which Pillow would turn the pixels, but not the size
    tag = image.getexif().get(EXIF_ORIENTATION)
    if tag is None:  # older releases of Pillow do not look into the XMP of JPEGs
        told = re.search(_XMP + rb'(?:="|>)([1-8])', xmp)
        tag = int(told[1]) if told else 1
    return _UPRIGHT.get(tag, _UPRIGHT[1])


def _start_of_scan(data: bytes) -> int:
    """Where the header of a JPEG ends; at the end of what is not laid out as usual."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b"\xff", b""):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at if data[at : at + 2] == b"\xff\xda" else len(data)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose text is an address in memory
        return "not a picture of a kind that can be read"
    return str(error) or type(error).__name__  # a MemoryError has no text


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3) uint8 of an image of any mode; 16-bit grey keeps its upper byte."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, so a truncated photo would pass unseen")
    if image.mode == "F":
        raise ValueError("a floating-point picture has no known white")
    if image.mode.startswith("I"):
        if image.mode == "I" and image.format not in ("PNG", "PPM"):  # whose 16 bits Pillow gives as 32
            raise ValueError("a picture of 32-bit integers has no known white")
        values = np.asarray(image).astype(np.int64)
        if 0 < values.max() < _DARK:
            _warn_of_dark(name, int(values.max()))
        grey = (values >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # a copy: torch wants writable memory


def _warn_of_dark(name: str, largest: int) -> None:
    """Name the first of such pictures, since a camera of 12 bits makes all of its pictures so."""
    global _dark_told
    if not _dark_told:
        _dark_told = True
        print_log(
            f"photo {name}: its largest 16-bit value is {largest:,} of 65,535, so it is nearly black here. If it was "
            "taken with fewer bits, convert it and its like: multiply values of 12 bits by 16, or save 8 bits. This "
            "is said of one photo only",
            "current",
            logging.WARNING,
        )
