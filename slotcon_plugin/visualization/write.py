"""Pictures to the disk: a PNG, or one HTML page with everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from slotcon_plugin.errors import UserError
from slotcon_plugin.files import replacing, require_writable, write_text
from slotcon_plugin.page import figure, html_page, png_bytes


def require_picture_path(path: str | Path) -> Path:
    """The path, if its ending says what to write and it can be written, which is tried. Raises UserError."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".html"):
        raise UserError(f"{path}: expected a file name ending in .png (one picture) or .html (a page), see --out")
    require_writable(path)
    return path


def write_pictures(
    path: str | Path, title: str, sheet: Image.Image, figures: Sequence[tuple[str, Image.Image]] = ()
) -> Path:
    """Write ``sheet`` as a PNG, or a page of the figures, (caption, picture) each, by the path's ending.

    A page without figures shows the sheet.
    """
    path = require_picture_path(path)
    if path.suffix.lower() == ".png":
        with replacing(path) as partial:
            partial.write_bytes(png_bytes(sheet))
    else:
        parts = [figure(picture, caption, title, photo=True) for caption, picture in figures or [("", sheet)]]
        write_text(path, html_page(title, parts))
    return path
