"""Pictures side by side, with numbers, captions and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from unicodedata import normalize

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.grouped import GroupedPhoto
from slotcon_plugin.visualization.overlay import overlay

PAPER, INK = (255, 255, 255), (34, 34, 34)
GAP = 8
_FONT_FILE = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
_FONT_SIZE = 13
# Segments smaller than this share of the photo get no number on them.
_NUMBERED_SHARE = 0.02
# Prototypes below this share of the area are not in the legend.
LISTED_SHARE = 0.001
LISTED = 24  # prototypes in a legend at most
_MAX_WIDTH = 1500  # of a contact sheet, in pixels, unless one photo is wider
_WIDEST = 8  # times its height; of what is wider (a line between two parts of a web page), the width is this


@lru_cache(maxsize=4)
def font(size: int = _FONT_SIZE) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along, so that pictures look the same on every machine; Pillow's is ASCII."""
    return ImageFont.truetype(_FONT_FILE, size)


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    """Code points that the font has."""
    return frozenset(FT2Font(_FONT_FILE).get_charmap())


def in_font(text: str) -> str:
    """Text with what the font lacks escaped (``\\u6c34``), as :func:`~slotcon_plugin.photos.printable` does."""
    has = _characters()
    return "".join(c if ord(c) in has else c.encode("unicode_escape").decode() for c in normalize("NFC", text))


def inner_point(mask: np.ndarray) -> tuple[int, int]:
    """The point (x, y) of a mask ``(H, W)`` bool that lies deepest inside it, for a number to stand on."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(depth[1:-1, 1:-1].argmax(), mask.shape)
    return int(x), int(y)


def numbered_overlay(grouped: GroupedPhoto, height: int) -> Image.Image:
    """The overlay of a photo at a height in pixels, larger segments with the number of their prototype."""
    picture = fit_height(Image.fromarray(overlay(grouped.photo, grouped.owners, grouped.num_prototypes)), height)
    stored = grouped.photo.shape[1::-1]
    scale_x, scale_y = (shown / side for shown, side in zip(fitted_size(*stored, height), stored))
    draw = ImageDraw.Draw(picture)
    for prototype in np.flatnonzero(grouped.shares() >= _NUMBERED_SHARE).tolist():
        x, y = inner_point(grouped.owners == prototype)
        draw.text(
            (x * scale_x, y * scale_y),
            str(prototype),
            fill=PAPER,
            font=font(),
            anchor="mm",
            stroke_width=2,
            stroke_fill=INK,
        )
    return picture


def legend(shares: np.ndarray, width: int) -> Image.Image:
    """The largest prototypes: colour, number and share of the area.

    Args:
        shares: ``(K,)``, sums to 1.
        width: of the picture, in pixels.
    """
    order = [k for k in np.argsort(-shares, kind="stable")[:LISTED].tolist() if shares[k] >= LISTED_SHARE]
    cell, height = 104, 28
    columns = max(1, width // cell)
    picture = Image.new("RGB", (width, height * -(-len(order) // columns)), PAPER)
    draw = ImageDraw.Draw(picture)
    colors = prototype_colors(len(shares))
    for i, k in enumerate(order):
        x, y = i % columns * cell, i // columns * height
        draw.rectangle((x + 2, y + 5, x + 20, y + 23), fill=tuple(colors[k].tolist()), outline=INK)
        draw.text((x + 26, y + 14), f"{k}: {shares[k]:.1%}", fill=INK, font=font(), anchor="lm")
    return picture


def fit_height(picture: Image.Image, height: int) -> Image.Image:
    """Resize to a height, keeping the ratio; what is wider than eight times its height lies at the top of paper."""
    width, used = fitted_size(picture.width, picture.height, height)
    small = picture.resize((width, used), Image.Resampling.LANCZOS)
    if used == height:
        return small
    paper = Image.new("RGB", (width, height), PAPER)
    paper.paste(small)
    return paper


def fitted_size(width: int, height: int, shown: int) -> tuple[int, int]:
    """(width, height) in pixels that a picture has in what :func:`fit_height` makes of it at a height of ``shown``."""
    if width > _WIDEST * height:
        return _WIDEST * shown, max(1, round(height * _WIDEST * shown / width))
    return max(1, round(width * shown / height)), shown


def beside(pictures: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Pictures in a row, aligned at the top."""
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(p.height for p in pictures)), PAPER)
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + gap
    return row


def below(pictures: Sequence[Image.Image], gap: int = GAP, margin: int = GAP) -> Image.Image:
    """Pictures under each other, aligned at the left, with a margin around all."""
    height = sum(p.height for p in pictures) + gap * (len(pictures) - 1)
    column = Image.new("RGB", (max(p.width for p in pictures) + 2 * margin, height + 2 * margin), PAPER)
    y = margin
    for picture in pictures:
        column.paste(picture, (margin, y))
        y += picture.height + gap
    return column


def caption(text: str, width: int) -> Image.Image:
    """A line of text, shortened to the width; characters that the font lacks are escaped."""
    text = in_font(text)
    strip = Image.new("RGB", (width, _FONT_SIZE + 7), PAPER)
    draw = ImageDraw.Draw(strip)
    while draw.textlength(text, font=font()) > width and len(text) > 1:
        text = text[:-2].rstrip() + "…"
    draw.text((0, strip.height // 2), text, fill=INK, font=font(), anchor="lm")
    return strip


def photo_beside_overlay(grouped: GroupedPhoto, height: int) -> Image.Image:
    """One photo, its grouping to the right."""
    return beside([fit_height(Image.fromarray(grouped.photo), height), numbered_overlay(grouped, height)], gap=2)


def contact_sheet(photos: Sequence[GroupedPhoto], height: int = 240) -> Image.Image:
    """Photos and their groupings in rows, a legend of the largest prototypes of all of them at the end.

    Args:
        photos: at least one.
        height: of each photo, in pixels.
    """
    rows, row = [], []
    for grouped in photos:
        pair = photo_beside_overlay(grouped, height)
        pair = below([caption(grouped.name, pair.width), pair], gap=0, margin=0)
        if row and sum(p.width + 2 * GAP for p in row) + pair.width > _MAX_WIDTH:
            rows.append(beside(row, gap=2 * GAP))
            row = []
        row.append(pair)
    rows.append(beside(row, gap=2 * GAP))
    width = max(r.width for r in rows)
    shares = np.mean([grouped.shares() for grouped in photos], axis=0)
    title = caption(
        "A colour with its number is one prototype, in all pictures; the largest, and their share of the area:", width
    )
    return below([*rows, title, legend(shares, width)])
