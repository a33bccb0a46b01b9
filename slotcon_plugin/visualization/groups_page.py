"""Groupings as a page: each photo beside its segments by the trained and by an untrained network, and their legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from slotcon_plugin.page import fill, html_page, picture_data
from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.grouped import GroupedPhoto
from slotcon_plugin.visualization.sheet import LISTED, LISTED_SHARE, fit_height, numbered_overlay

_HEIGHT = 300  # of a picture, in pixels of the page
_LEGEND = """\
<p>Photo, its segments{% if untrained %}, its segments by the same network {{ untrained }}{% endif %}. A prototype has
the same colour and number in every picture{% if untrained %} of a column{% endif %}. The largest of the trained one,
with their share of the area:</p>
<p class="legend">{% for number, color, share in entries %}
<span><i style="background:rgb{{ color }}"></i>{{ number }}: {{ "%.1f" | format(100 * share) }} %</span>
{% endfor %}</p>
<style>
.legend { display: flex; flex-wrap: wrap; gap: .3em 1.2em; } .legend i { display: inline-block; width: 1em; height: 1em;
  margin-right: .4em; vertical-align: -.15em; border: 1px solid #8888; }
.row { display: flex; gap: 6px; flex-wrap: wrap; align-items: start; }
.row div { flex: 1 1 240px; max-width: 420px; } .row small { opacity: .7; } .row img { width: 100%; display: block; }
</style>
"""
_ROW = """\
<figure><figcaption>{{ name }}</figcaption><div class="row">
{% for label, data in pictures %}
<div><img alt="{{ name }}: {{ label }}" src="{{ data }}"><small>{{ label }}</small></div>
{% endfor %}
</div></figure>
"""


def groups_page(
    title: str, trained: Sequence[GroupedPhoto], untrained: Sequence[GroupedPhoto] = (), from_weights: bool = False
) -> str:
    """A page of photos.

    Args:
        title: of the page.
        trained: at least one photo with its grouping.
        untrained: the same photos, grouped by a network that has learned nothing.
        from_weights: whether the trained one began from weights, and so not as the untrained one is.
    """
    shares = np.mean([grouped.shares() for grouped in trained], axis=0)
    colors = prototype_colors(len(shares))
    order = [k for k in np.argsort(-shares, kind="stable")[:LISTED].tolist() if shares[k] >= LISTED_SHARE]
    entries = [(k, tuple(colors[k].tolist()), shares[k]) for k in order]
    which = "with random weights, not those that this run began with" if from_weights else "before training"
    parts: list[Markup] = [fill(_LEGEND, entries=entries, untrained=which if untrained else "")]
    for index, grouped in enumerate(trained):
        photo = fit_height(Image.fromarray(grouped.photo), _HEIGHT)
        pictures = [("photo", photo), ("trained", numbered_overlay(grouped, _HEIGHT))]
        if untrained:
            pictures.append(("untrained", numbered_overlay(untrained[index], _HEIGHT)))
        parts.append(fill(_ROW, name=grouped.name, pictures=[(label, picture_data(p)) for label, p in pictures]))
    return html_page(title, parts)
