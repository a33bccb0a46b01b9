"""What a conversion says of itself, for the conversion tools and ``slotcon export``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.convert.network import Network


def summary(out: str, meta: Mapping[str, Any]) -> str:
    """What was read, how it was proved, what was written.

    Args:
        out: file that was written.
        meta: of it, see :mod:`slotcon_plugin.convert.metadata`.
    """
    proof = meta["proof"]
    if proof["method"] == "feature parity":
        worst = max(proof["relative_errors"].values())
        proved = f"every stage's map equals that of {proof['framework']}: largest relative error {worst:.1e}"
    else:
        proved = f"by the key map alone, not by features: {proof['reason']}"
    parts = {name: kind.title for name, kind in DECODERS.items()}
    left_out = "".join(
        f"        its {title} is left out: {meta[f'{part}_left_out']}\n"
        for part, title in parts.items()
        if f"{part}_left_out" in meta
    )
    decoder = "".join(f" with {title}" for part, title in parts.items() if meta.get(part))
    trained = "unknown: see --kind, --colour-order, --mean, --std"
    if meta["colour_order"] != UNKNOWN:
        trained = f"{meta['colour_order']}, mean {meta['mean']}, std {meta['std']} (pixels 0..255)"
    if meta.get("stride_in_1x1", UNKNOWN) != UNKNOWN:
        trained += f", stride in the {'1x1' if meta['stride_in_1x1'] else '3x3'} convolution"
    return (
        f"read    {meta['source_file']}: kind {meta['kind']} ({meta['recognised']}), {meta['branch']} below "
        f"{meta['prefix'] or 'no prefix'}, {Network(**meta['network'])}{decoder}\n"
        f"sha256  {meta['source_sha256']}\n"
        f"{left_out}"
        f"proved  {proved}\n"
        f"wrote   {out}\n"
        f"input   {trained}"
    )
