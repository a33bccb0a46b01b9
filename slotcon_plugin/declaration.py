"""What a pretraining says of itself in its checkpoints: between pretrainers, who write it, and all who read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRETRAINING_KEY = "pretraining"
"""Key of a checkpoint under which the declaration lies.

A dict with ``method`` (``'slotcon'``), ``title`` (``'SlotCon'``), ``branch`` that is transferred unless another is
asked for (``'teacher'``), ``groups`` and ``embeds_pixels`` (what the method can do), the input convention
``colour_order``, ``mean``, ``std`` (for pixels in 0..255; not there if the data preprocessor does not say),
``backbone`` (its config), ``photos`` (how many it learned from) and ``init``
(what the run started from: ``title``, ``file``, ``sha256``, ...; None = random weights).
"""


def whole_title(declared: Mapping[str, Any]) -> str:
    """``ImageNet, then VADeR on 2,915 photos``; a run from random weights is called by its method alone."""
    if not declared.get("init"):
        return declared["title"]
    photos = f" on {declared['photos']:,} photos" if declared.get("photos") else ""
    return f"{declared['init']['title']}, then {declared['title']}{photos}"
