"""The form that every checkpoint passes through: a plain ResNet under torchvision's names, in float32."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slotcon_plugin.convert.find import Candidate, fit
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.resnet import BASIC_BLOCK_DEPTHS, BLOCKS, STAGES, resnet_blocks, stage_maps


@dataclass(frozen=True)
class CanonicalBackbone:
    """A ResNet's weights and what is known about them.

    Attributes:
        state_dict: torchvision's names without the classifier, complete, float32 (counters int64).
        depth: 18, 34, 50, 101 or 152.
        meta: provenance and input convention, see :mod:`slotcon_plugin.convert.metadata`.
        fpn: a feature pyramid's ``lateral.{0..3}.{weight,bias}`` (1x1) and ``output.{0..3}.{weight,bias}`` (3x3),
            level 0 = stride 4; None where the checkpoint has none.
    """

    state_dict: dict[str, Tensor]
    depth: int
    meta: dict[str, Any] = field(default_factory=dict)
    fpn: dict[str, Tensor] | None = None


class CanonicalResNet(nn.Module):
    """torchvision's ResNet whose forward returns the four stage maps; the yardstick of every proof."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        from torchvision.models import resnet

        self.net = resnet.ResNet(*resnet_blocks(depth))
        self.net.fc = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps at strides 4, 8, 16, 32."""
        return stage_maps(self.net, images)


def build_canonical(canonical: CanonicalBackbone) -> CanonicalResNet:
    """A torchvision ResNet holding these weights, in evaluation mode; its forward returns the four stage maps."""
    with torch.device("meta"):  # no time spent on weights that are replaced at once
        model = CanonicalResNet(canonical.depth)
    model.net.load_state_dict(canonical.state_dict, strict=True, assign=True)
    return model.eval()


def build_canonical_fpn(fpn: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's feature pyramid holding these weights: ordered dict of stage maps -> the same of outputs."""
    from torchvision.ops import FeaturePyramidNetwork

    from slotcon_plugin.convert.names import TORCHVISION_FPN

    channels = [fpn[f"lateral.{level}.weight"].shape[1] for level in range(4)]
    module = FeaturePyramidNetwork(channels, fpn["lateral.0.weight"].shape[0])
    module.load_state_dict({TORCHVISION_FPN.to_target(k).removeprefix("fpn."): v for k, v in fpn.items()})
    return module.eval()


def backbone_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes and values under canonical names: equal weights hash equal in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        if name.endswith("num_batches_tracked"):  # a counter of training steps, which some formats leave out
            continue
        tensor = state_dict[name].detach().to(torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def canonicalise(candidate: Candidate, where: str) -> tuple[dict[str, Tensor], int, list[str]]:
    """The complete ResNet out of weights below some prefix.

    Returns:
        State dict under torchvision's names (in their order, float32, counters int64), depth, and the modules beside
        it (``fc``, heads, queues) that were left over.

    Raises:
        ConversionError: not a plain ResNet of a known depth; the first offending key is named.
    """
    depth = _find_depth(candidate.weights, where)
    with torch.device("meta"):
        expected = CanonicalResNet(depth).net.state_dict()
    complete, left_over = fit(candidate, expected, where, f"a plain ResNet-{depth}")
    return complete, depth, left_over


def fpn_shapes(weights: Mapping[str, Tensor], width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a feature pyramid on the stage maps of a ResNet."""
    shapes: dict[str, tuple[int, ...]] = {}
    for level, stage in enumerate(STAGES):
        last = "conv3" if f"{stage}.0.conv3.weight" in weights else "conv2"
        channels = len(weights[f"{stage}.0.{last}.weight"])
        shapes |= {f"lateral.{level}.weight": (width, channels, 1, 1), f"lateral.{level}.bias": (width,)}
        shapes |= {f"output.{level}.weight": (width, width, 3, 3), f"output.{level}.bias": (width,)}
    return shapes


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
