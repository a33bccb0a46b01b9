"""HTML pages that need nothing but themselves, and the pictures in them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_WEBP_SIDE = 16383  # pixels, the most that the format knows
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2em; } a { color: #2a7fd0; }
figure { margin: 2em 0; } figcaption { margin-bottom: .5em; font-weight: 600; } img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; } td { font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8885; padding: .4em .8em; text-align: left; vertical-align: top; }
.note { opacity: .7; font-size: .9em; }
</style></head>
<body><h1>{{ title }}</h1>
{% for part in parts %}
{{ part }}
{% endfor %}
</body></html>
"""
_FIGURE = """\
<figure>{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}
<img alt="{{ alt }}" src="{{ data }}"></figure>
"""


def html_page(title: str, parts: Sequence[Markup]) -> str:
    """A page of parts that :func:`fill` or :func:`figure` made."""
    return fill(_PAGE, title=title, parts=parts)


def fill(template: str, **values: object) -> Markup:
    """A Jinja template with its values; texts are escaped."""
    return Markup(_ENVIRONMENT.from_string(template).render(values))


def figure(picture: Image.Image, caption: str = "", alt: str = "", photo: bool = False) -> Markup:
    """A picture, inside the page, with its caption above; see :func:`picture_data`."""
    data = picture_data(picture) if photo else f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
    return fill(_FIGURE, caption=caption, alt=alt or caption, data=data)


def picture_data(picture: Image.Image) -> str:
    """A photo as an address that holds it: WebP, a tenth of the PNG."""
    if max(picture.size) > _WEBP_SIDE:
        picture = picture.copy()
        picture.thumbnail((_WEBP_SIDE, _WEBP_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=82, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png_bytes(picture: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def draw(canvas: Figure) -> Image.Image:
    """What matplotlib has drawn, as a picture."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
