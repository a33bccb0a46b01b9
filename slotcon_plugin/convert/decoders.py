"""Decoders that travel with a backbone: their weights' names, their form, and what they compute, for a proof.

Weights stand under canonical names, which no two kinds share:

fpn       a feature pyramid: ``lateral.{0..3}.weight`` (1x1), ``output.{0..3}.weight`` (3x3), level 0 = the finest, each
          with ``bias`` or ``norm.*``
semantic  the semantic branch of Panoptic FPN on such a pyramid: ``scale.{level}.{block}.conv.weight`` (3x3) and
          ``scale.{level}.{block}.norm.*`` (GroupNorm)
fcn       an FCN head: ``convs.{i}.conv.weight`` (3x3) and ``convs.{i}.bn.*``
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from slotcon_plugin.convert.names import (
    DETECTRON2_FPN,
    MMSEG_FCN,
    MMSEG_SEMANTIC,
    OPENMMLAB_FPN,
    PROJECT_FCN,
    PROJECT_FPN,
    PROJECT_SEMANTIC,
    TORCHVISION_FPN,
    KeyMap,
)

Form = tuple[Any, ...]
Sizes = Sequence[tuple[int, int]]
Weights = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

GROUP = 4  # channels a group of a semantic branch's GroupNorm, as FPNDecoder has them


@dataclass(frozen=True)
class DecoderKind:
    """One kind of decoder.

    Attributes:
        title: for people.
        spellings: of its names in files, by which it is found there.
        form: (weights, whole or not, channels of all stage maps) -> what tells it from others of its kind. Where a
            tensor is missing or wrong, any form whose shapes name it.
        words: of a form's numbers, a template.
        shapes: (form, channels of all stage maps) -> name and shape of every weight.
        compute: (weights, form, maps) -> maps.
        outputs: (number of maps) -> what to call these maps.
        on: the kind whose maps it takes; None = the backbone's stage maps.
        sees: (form, number of stage maps) -> how many of them it sees, the last ones.
        fits: (form, sizes of the stage maps) -> whether it can be computed on these; None = on any.
    """

    title: str
    spellings: tuple[KeyMap, ...]
    form: Callable[[Weights, Sequence[int]], Form]
    words: str
    shapes: Callable[[Form, Sequence[int]], Shapes]
    compute: Callable[[Weights, Form, Sequence[Tensor]], tuple[Tensor, ...]]
    outputs: Callable[[int], list[str]]
    on: str | None = None
    sees: Callable[[Form, int], int] = lambda form, maps: maps
    fits: Callable[[Form, Sizes], bool] | None = None


def halved(sizes: Sizes) -> bool:
    """Whether each map is half as large as the one before."""
    return all((h, w) == (2 * below_h, 2 * below_w) for (h, w), (below_h, below_w) in pairwise(sizes))


def fpn_form(weights: Weights, channels: Sequence[int]) -> Form:
    """(width, ``'BN'`` or None)."""
    width = next((v.shape[0] for k, v in weights.items() if k.startswith("lateral.0.") and v.ndim == 1), 0)
    return width, "BN" if any(".norm." in name for name in weights) else None


def fpn_shapes(form: Form, channels: Sequence[int]) -> Shapes:
    """Of a pyramid on stage maps of so many channels."""
    width, norm = form
    shapes: Shapes = {}
    for level, count in enumerate(channels):
        for part, shape in (("lateral", (width, count, 1, 1)), ("output", (width, width, 3, 3))):
            shapes[f"{part}.{level}.weight"] = shape
            shapes |= _norm_shapes(f"{part}.{level}.norm", width) if norm else {f"{part}.{level}.bias": (width,)}
    return shapes


def compute_fpn(weights: Weights, form: Form, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """By torchvision's feature pyramid."""
    from torchvision.ops import FeaturePyramidNetwork

    width, norm = form
    module = FeaturePyramidNetwork([x.shape[1] for x in maps], width, norm_layer=nn.BatchNorm2d if norm else None)
    module.load_state_dict({TORCHVISION_FPN.to_target(k).removeprefix("fpn."): v for k, v in weights.items()})
    return tuple(module.eval()(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())


def semantic_form(weights: Weights, channels: Sequence[int]) -> Form:
    """(width of the pyramid, width, norm as :func:`group_norm` has it, number of blocks at each level)."""
    first = weights.get("scale.0.0.conv.weight")
    width, pyramid = first.shape[:2] if first is not None and first.ndim == 4 else (0, 0)
    places = [tuple(map(int, name.split(".")[1:3])) for name in weights]
    blocks = tuple(1 + max((n for level, n in places if level == i), default=0) for i in range(len(channels)))
    return pyramid, width, group_norm(GROUP), blocks


def group_norm(channels: int) -> str:
    """Name of GroupNorm with so many channels a group."""
    return f"GN of {channels}"


def semantic_shapes(form: Form, channels: Sequence[int]) -> Shapes:
    """Of the branch's blocks."""
    pyramid, width, _, blocks = form
    shapes: Shapes = {}
    for level, count in enumerate(blocks):
        for n in range(count):
            shapes[f"scale.{level}.{n}.conv.weight"] = (width, width if n else pyramid, 3, 3)
            shapes |= {f"scale.{level}.{n}.norm.{leaf}": (width,) for leaf in ("weight", "bias")}
    return shapes


def compute_semantic(weights: Weights, form: Form, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Each level's blocks, doubled bilinearly after each but at the finest, summed."""
    _, width, _, blocks = form
    total: Tensor | float = 0.0
    for level, (x, count) in enumerate(zip(maps, blocks, strict=True)):
        for n in range(count):
            of_block = f"scale.{level}.{n}"
            x = nn.functional.conv2d(x, weights[f"{of_block}.conv.weight"], padding=1)
            norm = (weights[f"{of_block}.norm.{leaf}"] for leaf in ("weight", "bias"))
            x = nn.functional.group_norm(x, width // GROUP, *norm).relu()
            if level:
                x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    return (total,)


def semantic_fits(form: Form, sizes: Sizes) -> bool:
    """Whether doubling after each block brings every level to the size of the finest."""
    *_, blocks = form
    doublings = (0, *blocks[1:])
    return blocks[0] == 1 and all((h << n, w << n) == tuple(sizes[0]) for (h, w), n in zip(sizes, doublings))


def fcn_form(weights: Weights, channels: Sequence[int]) -> Form:
    """(how many of the last stage maps it sees side by side, width, number of convolutions)."""
    first = weights.get("convs.0.conv.weight")
    seen = first.shape[1] if first is not None and first.ndim == 4 else 0
    stages = next((n for n in range(1, len(channels) + 1) if sum(channels[-n:]) == seen), 1)
    width = weights["convs.0.bn.weight"].numel() if "convs.0.bn.weight" in weights else 0
    return stages, width, 1 + max(int(name.split(".")[1]) for name in weights)


def fcn_shapes(form: Form, channels: Sequence[int]) -> Shapes:
    """Of its convolutions on the last of the stage maps."""
    stages, width, num_convs = form
    shapes: Shapes = {}
    for i in range(num_convs):
        shapes[f"convs.{i}.conv.weight"] = (width, width if i else sum(channels[-stages:]), 3, 3)
        shapes |= _norm_shapes(f"convs.{i}.bn", width)
    return shapes


def compute_fcn(weights: Weights, form: Form, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What its classifier sees: the last stage maps side by side at the size of the first of these, convolved."""
    stages, _, num_convs = form
    size = maps[-stages].shape[-2:]
    resized = [nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[-stages:]]
    x = torch.cat(resized, dim=1)
    for i in range(num_convs):
        x = nn.functional.conv2d(x, weights[f"convs.{i}.conv.weight"], padding=1)
        statistics = (weights[f"convs.{i}.bn.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        x = nn.functional.batch_norm(x, *statistics).relu()
    return (x,)


def _norm_shapes(name: str, width: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


DECODERS = {
    "fpn": DecoderKind(
        title="FPN",
        spellings=(PROJECT_FPN, DETECTRON2_FPN, OPENMMLAB_FPN, TORCHVISION_FPN),
        form=fpn_form,
        words="width {} and norm {}",
        shapes=fpn_shapes,
        compute=compute_fpn,
        outputs=lambda maps: [f"fpn level {i}" for i in range(maps)],
    ),
    "semantic": DecoderKind(
        title="semantic branch",
        spellings=(PROJECT_SEMANTIC, MMSEG_SEMANTIC),
        form=semantic_form,
        words="pyramid width {}, width {}, norm {}, blocks {}",
        shapes=semantic_shapes,
        compute=compute_semantic,
        outputs=lambda maps: ["semantic branch"],
        on="fpn",
        fits=semantic_fits,
    ),
    "fcn": DecoderKind(
        title="FCN head",
        spellings=(PROJECT_FCN, MMSEG_FCN),
        form=fcn_form,
        words="stage maps {}, width {}, convolutions {}",
        shapes=fcn_shapes,
        compute=compute_fcn,
        outputs=lambda maps: ["fcn head"],
        sees=lambda form, maps: form[0],
    ),
}
"""Every kind, after the one that it stands on."""
