"""The form that every checkpoint passes through: a network of torchvision or timm under its own names, in float32."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
        decoders: weights of the decoders that the checkpoint has, kind -> canonical names, see
            :data:`~slotcon_plugin.convert.decoders.DECODERS`.
    """

    state_dict: dict[str, Tensor]
    network: Network
    meta: dict[str, Any] = field(default_factory=dict)
    decoders: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Backbone's and decoders', under canonical names."""
        return {name: value for part in (self.state_dict, *self.decoders.values()) for name, value in part.items()}


def build_canonical(
    canonical: CanonicalBackbone, output_stride: int | None = None, any_size: bool = False
) -> nn.Module:
    """The network holding these weights, in evaluation mode; its forward returns the stage maps.

    ``output_stride``, ``any_size``: of :meth:`Network.build`.
    """
    model = canonical.network.build(output_stride, any_size)
    missing, _ = inside(model).load_state_dict(canonical.state_dict, strict=False)
    if lost := set(missing) - canonical.network.behind.keys():
        raise RuntimeError(f"{canonical.network} got no weight for {sorted(lost)[0]}")
    return model.eval()


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
