"""Pictures to the disk: a PNG, or one HTML page with everything in it."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1280px; margin: 2em auto;
       padding: 0 1em; }
figure { margin: 2em 0; } figcaption { margin-bottom: .5em; } img { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b; } }
"""

Figure = tuple[str, Image.Image]  # caption and picture


def require_picture_path(path: str | Path) -> Path:
    """The path, if its ending says what to write. Raises ValueError."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".html"):
        raise ValueError(f"{path}: expected a file name ending in .png (one picture) or .html (a page), see --out")
    return path


def write_pictures(path: str | Path, title: str, sheet: Image.Image, figures: Sequence[Figure] = ()) -> Path:
    """Write ``sheet`` as a PNG, or a page of the figures (of the sheet, when there are none), by the path's ending."""
    path = require_picture_path(path)
    if path.suffix.lower() == ".png":
        return write_whole(path, png_bytes(sheet))
    return write_whole(path, page(title, figures or [("", sheet)]).encode())


def page(title: str, figures: Sequence[Figure]) -> str:
    """An HTML page that needs nothing but itself: pictures are inlined."""
    parts = [
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<img alt="{html.escape(caption or title)}" src="data:image/png;base64,'
        f'{base64.b64encode(png_bytes(picture)).decode()}"></figure>'
        for caption, picture in figures
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def png_bytes(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file so that it is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path
