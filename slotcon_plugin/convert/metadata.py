"""What travels with converted weights: where they come from, what input they expect, how they were proved.

Every written file carries one dict under the key ``slotcon_plugin``:

=================  ====================================================================================
source_file        name of the checkpoint that was converted
source_sha256      of its bytes
kind, recognised   row of :data:`slotcon_plugin.convert.sources.SOURCES`, and why it is that one
method             what to call the pretraining in tables: ``slotcon``, ``moco``, ... or ``unknown``
title, init        the same in words, and what that run started from, if the file says so
branch, prefix     ``student``, ``teacher`` or ``backbone``; what stood before the names in the file
left_over          modules beside the backbone that were not taken (heads, queues, ...)
network            ``name``, ``library`` (``torchvision``: a plain ResNet; ``timm``) and ``options``
fpn, semantic, fcn whether a feature pyramid, its semantic branch, an FCN head is in the file too
fpn_left_out       why the checkpoint's pyramid is not, if it has one; ``fcn_left_out`` likewise
colour_order       ``RGB`` or ``BGR``; this and the next four are ``unknown`` where the file and the user are silent
mean, std          of each channel in that order, for pixels in 0..255
stem               of ResNets, ``7x7``: one 7x7 convolution of stride 2 and a 3x3 max pooling
stride_in_1x1      of ResNets: where a bottleneck has its stride: False = in the 3x3 convolution (torchvision's style)
backbone_sha256    of names and values, the same whatever the target format
target             format written
proof              ``method``, framework with version, largest relative error of each stage's map
tool_version       of this package
origin             the same dict of the source, if that was itself a converted file
=================  ====================================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slotcon_plugin.checkpoints.runs import locate
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.declaration import PRETRAINING_KEY, whole_title
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD

META_KEY = "slotcon_plugin"

IMAGENET_INPUT = {
    "colour_order": "RGB",
    "mean": [round(255 * value, 3) for value in IMAGENET_MEAN],
    "std": [round(255 * value, 3) for value in IMAGENET_STD],
    "stem": "7x7",
    "stride_in_1x1": False,
}
"""The input convention of all known kinds."""

UNKNOWN = "unknown"
UNKNOWN_INPUT = {**dict.fromkeys(IMAGENET_INPUT, UNKNOWN), "stem": "7x7"}
"""For weights whose file does not state it: caffe's (BGR, no std, stride in the 1x1) have torchvision's keys, too."""


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file that this package converted.

    Raises:
        ConversionError: unreadable, or not written by this package.
    """
    meta = load_file(path).get(META_KEY)
    if not isinstance(meta, dict):
        raise ConversionError(
            f"{path} carries no conversion metadata: it was not written by tools/convert_to_*.py. Convert the "
            "checkpoint first, so that colour order, mean, std, stem and stride can be checked."
        )
    return meta


def started_from(meta: Mapping[str, Any]) -> dict[str, Any]:
    """``title`` and ``init`` of a pretraining that started from weights, for result files; else nothing."""
    return {name: meta[name] for name in ("title", "init")} if meta.get("init") else {}


def told_by(path: str | Path) -> dict[str, Any]:
    """:func:`started_from` of a checkpoint of this project, or of a file that was converted from one.

    Raises:
        ConversionError: see :func:`~slotcon_plugin.checkpoints.runs.locate`; or the file cannot be read.
    """
    content = load_file(locate(path))
    told = content.get(PRETRAINING_KEY) or {}
    return started_from({**told, "title": whole_title(told)} if told.get("init") else content.get(META_KEY) or {})


def check_compatible(
    meta: Mapping[str, Any],
    *,
    colour_order: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: str | None = None,
    stride_in_1x1: bool | None = None,
) -> None:
    """Compare the input convention of converted weights with a transfer config; None = not asked.

    What is not known of the weights is warned of and taken to be what the config has.

    Weights that load but see other colours, another scale of pixels or another stride train quietly to a result
    some points too low; this stops before.

    Args:
        meta: of the converted file, see :func:`read_metadata`.
        colour_order: ``RGB`` or ``BGR``, as the framework feeds its network.
        mean, std: as the framework subtracts and divides, for pixels in 0..255.
        stem: ``7x7`` or ``deep`` (three 3x3 convolutions, OpenMMLab's ResNetV1c and V1d).
        stride_in_1x1: detectron2's STRIDE_IN_1X1; ``style='caffe'`` in OpenMMLab.

    Raises:
        ConversionError: with one line for each difference and what to set.
    """
    wanted = {
        "colour_order": colour_order,
        "mean": mean,
        "std": std,
        "stem": stem,
        "stride_in_1x1": stride_in_1x1,
    }
    asked = {name: value for name, value in wanted.items() if value is not None}
    if silent := [name for name in asked if meta[name] == UNKNOWN]:
        warnings.warn(
            f"{meta.get('source_file', 'the file')} does not say on which pixels it was trained ({', '.join(silent)}); "
            "taken to be what the config feeds. Convert it with --kind, or --colour-order, --mean and --std, to be "
            "sure.",
            stacklevel=2,
        )
    problems = [
        f"  {name}: the weights want {meta[name]}, the config has {_plain(value)}{_hint(name, value)}"
        for name, value in asked.items()
        if name not in silent and not _agree(meta[name], value)
    ]
    if problems:
        raise ConversionError(
            f"the transfer config does not fit the weights of {meta.get('source_file', 'this file')}:\n"
            + "\n".join(problems)
            + "\nSet these fields of the config to what the weights want."
        )


def _agree(known: Any, value: Any) -> bool:
    if isinstance(known, (str, bool)):
        return known == value
    return len(known) == len(value) and all(math.isclose(a, b, abs_tol=0.01) for a, b in zip(known, value))


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool)) else [float(v) for v in value]


def _hint(name: str, value: Any) -> str:
    if name in ("mean", "std") and max(value) <= 1:
        return " (a 0..1 scale for 0..255 pixels makes inputs 255 times too large or lets all images look alike)"
    return ""
