"""The form that every checkpoint passes through: a network of torchvision or timm under its own names, in float32."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from slotcon_plugin.convert.find import Candidate, as_plain, fit
from slotcon_plugin.convert.network import Network, fit_position_embedding, inside
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.resnet import BASIC_BLOCK_DEPTHS, BLOCKS, STAGES


@dataclass(frozen=True)
class CanonicalBackbone:
    """A backbone's weights and what is known about them.

    Attributes:
        state_dict: the library's names without the classifier, complete, float32 (counters int64); of timm's networks
            also what lies behind the last map, if the file has all of it.
        network: what they are the weights of.
        meta: provenance and input convention, see :mod:`slotcon_plugin.convert.metadata`.
        fpn: a feature pyramid's ``lateral.{0..3}.weight`` (1x1) and ``output.{0..3}.weight`` (3x3), level 0 = stride 4,
            each with ``bias`` or ``norm.*``; None where the checkpoint has none.
        fcn: an FCN head's ``convs.{i}.conv.weight`` (3x3) and ``convs.{i}.bn.*``; None where the checkpoint has none.
    """

    state_dict: dict[str, Tensor]
    network: Network
    meta: dict[str, Any] = field(default_factory=dict)
    fpn: dict[str, Tensor] | None = None
    fcn: dict[str, Tensor] | None = None


def build_canonical(canonical: CanonicalBackbone, output_stride: int | None = None) -> nn.Module:
    """The network holding these weights, in evaluation mode; its forward returns the stage maps.

    ``output_stride``: of :meth:`Network.build`.
    """
    model = canonical.network.build(output_stride)
    missing, _ = inside(model).load_state_dict(canonical.state_dict, strict=False)
    if lost := set(missing) - canonical.network.behind.keys():
        raise RuntimeError(f"{canonical.network} got no weight for {sorted(lost)[0]}")
    return model.eval()


def build_canonical_fpn(fpn: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's feature pyramid holding these weights: ordered dict of stage maps -> the same of outputs."""
    from torchvision.ops import FeaturePyramidNetwork

    from slotcon_plugin.convert.names import TORCHVISION_FPN

    channels, width, norm = fpn_form(fpn)
    module = FeaturePyramidNetwork(channels, width, norm_layer=nn.BatchNorm2d if norm else None)
    module.load_state_dict({TORCHVISION_FPN.to_target(k).removeprefix("fpn."): v for k, v in fpn.items()})
    return module.eval()


def fcn_form(fcn: Mapping[str, Tensor], channels: Sequence[int]) -> tuple[int, int, int]:
    """How many of the last stage maps an FCN head sees side by side, its width, its number of convolutions.

    Args:
        fcn: under canonical names, whole or not.
        channels: of all stage maps.

    Returns:
        (maps, width, convolutions). Where the weights fit no number of maps it is 1, where a width is missing 0: the
        shapes that follow then name the tensor that is wrong.
    """
    first = fcn.get("convs.0.conv.weight")
    seen = first.shape[1] if first is not None and first.ndim == 4 else 0
    stages = next((n for n in range(1, len(channels) + 1) if sum(channels[-n:]) == seen), 1)
    width = fcn["convs.0.bn.weight"].numel() if "convs.0.bn.weight" in fcn else 0
    return stages, width, 1 + max(int(name.split(".")[1]) for name in fcn)


def fcn_input(maps: Sequence[Tensor], stages: int) -> Tensor:
    """The last stage maps side by side at the size of the first of these, bilinearly: ``(B, sum of C, h, w)``."""
    size = maps[-stages].shape[-2:]
    resized = [nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[-stages:]]
    return torch.cat(resized, dim=1)


def build_canonical_fcn(fcn: Mapping[str, Tensor]) -> nn.Module:
    """Convolution, BatchNorm and ReLU in turn, holding these weights: :func:`fcn_input` -> what is classified."""
    blocks = []
    for i in range(len(fcn) // 6):
        weight = fcn[f"convs.{i}.conv.weight"]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        blocks.append(nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(len(weight)), activate=nn.ReLU())))
    module = nn.Sequential(*blocks)
    module.load_state_dict({name.removeprefix("convs."): value for name, value in fcn.items()})
    return module.eval()


def backbone_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes and values under canonical names: equal weights hash equal in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        if name.endswith("num_batches_tracked"):  # a counter of training steps, which some formats leave out
            continue
        tensor = state_dict[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def canonicalise(
    candidate: Candidate, where: str, network: Network | None = None
) -> tuple[dict[str, Tensor], Network, list[str]]:
    """The complete network out of weights below some prefix.

    Args:
        candidate: where they lie.
        where: the file and branch, for messages.
        network: which one is wanted; None = a plain ResNet, whose depth is read from the names.

    Returns:
        State dict (in the library's order, float32, counters int64), the network, and the modules beside it (``fc``,
        heads, queues) that were left over.

    Raises:
        ConversionError: another network; the first offending key is named.
    """
    if network is None:
        network = Network(f"resnet{_find_depth(candidate.weights, where)}")
    if network.library == "timm":
        candidate = replace(candidate, weights=fit_position_embedding(candidate.weights, network))
    what = f"a plain {network}" if network.library == "torchvision" else str(network)
    complete, left_over = fit(candidate, network.shapes, where, what)
    behind = {
        name: as_plain(candidate.weights[name], like.dtype, f"{where}: {name}")
        for name, like in network.behind.items()
        if name in candidate.weights and candidate.weights[name].shape == like.shape
    }
    if behind.keys() == network.behind.keys():
        complete |= behind
        left_over = sorted({name.partition(".")[0] for name in candidate.weights if name not in complete})
    return complete, network, left_over


def fpn_form(fpn: Mapping[str, Tensor]) -> tuple[list[int], int, bool]:
    """Channels of the stage maps that a feature pyramid takes, its width, whether it has norm layers."""
    levels = sum(re.fullmatch(r"lateral\.\d+\.weight", name) is not None for name in fpn)
    channels = [fpn[f"lateral.{level}.weight"].shape[1] for level in range(levels)]
    return channels, fpn["lateral.0.weight"].shape[0], "lateral.0.norm.weight" in fpn


def fpn_shapes(channels: Sequence[int], width: int, norm: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a feature pyramid on stage maps of so many channels."""
    shapes: dict[str, tuple[int, ...]] = {}
    for level, count in enumerate(channels):
        for part, shape in (("lateral", (width, count, 1, 1)), ("output", (width, width, 3, 3))):
            shapes[f"{part}.{level}.weight"] = shape
            shapes |= _norm_shapes(f"{part}.{level}.norm", width) if norm else {f"{part}.{level}.bias": (width,)}
    return shapes


def fcn_shapes(in_channels: int, width: int, num_convs: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an FCN head's convolutions on a map of so many channels."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(num_convs):
        shapes[f"convs.{i}.conv.weight"] = (width, in_channels if i == 0 else width, 3, 3)
        shapes |= _norm_shapes(f"convs.{i}.bn", width)
    return shapes


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def _find_depth(weights: Mapping[str, Tensor], where: str) -> int:
    indices: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for name in weights:
        stage, _, rest = name.partition(".")
        if stage in indices:
            indices[stage].add(rest.partition(".")[0])
    blocks = tuple(len(indices[stage]) for stage in STAGES)
    basic = "layer1.0.conv3.weight" not in weights
    for depth, known in BLOCKS.items():
        if known == blocks and (depth in BASIC_BLOCK_DEPTHS) == basic:
            return depth
    raise ConversionError(
        f"{where}: {blocks} {'basic' if basic else 'bottleneck'} blocks in layer1..layer4 is no known ResNet; "
        f"known depths: {sorted(BLOCKS)}"
    )
