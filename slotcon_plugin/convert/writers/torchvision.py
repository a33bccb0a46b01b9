"""torchvision: plain names, as ``.pth`` under ``state_dict`` or as ``.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from slotcon_plugin.convert.decoders import Form
from slotcon_plugin.convert.metadata import META_KEY
from slotcon_plugin.convert.names import TORCHVISION, TORCHVISION_FPN
from slotcon_plugin.convert.network import Network
from slotcon_plugin.convert.writers.base import Runnable, Target, TargetDecoder, save_torch
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.resnet import stage_maps


def build_backbone(network: Network, config: str | None) -> Runnable:
    """torchvision's own constructor, its classifier taken off."""
    from torchvision import models

    if config is not None:
        raise ConversionError("torchvision has no config files: leave --config out")
    module = getattr(models, network.name)(weights=None)
    module.fc = nn.Identity()
    return Runnable(module, stage_maps)


def build_fpn(channels: Sequence[int], form: Form) -> Runnable:
    """torchvision's FeaturePyramidNetwork on given stage maps."""
    from torchvision.ops import FeaturePyramidNetwork

    width, norm = form
    fpn = FeaturePyramidNetwork(list(channels), width, norm_layer=nn.BatchNorm2d if norm else None)
    module = nn.ModuleDict({"fpn": fpn})
    return Runnable(module, lambda net, maps: tuple(net["fpn"](dict(enumerate(maps))).values()))


def save(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], path: Path) -> None:
    """safetensors where the path ends so (metadata as JSON in its header), a torch file otherwise."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path.touch()
        mode = path.stat().st_mode  # the umask's; safetensors makes its files private
        try:
            save_file(dict(tensors), path, metadata={META_KEY: json.dumps(meta)})
        except SafetensorError as error:  # a full disk, a read-only folder
            raise OSError(str(error)) from error
        path.chmod(mode)
    else:
        save_torch(tensors, meta, path)


TORCHVISION_TARGET = Target(
    name="torchvision",
    imports="torchvision",
    suffixes=(".pth", ".pt", ".safetensors"),
    names={"torchvision": TORCHVISION},
    build_backbone=build_backbone,
    save=save,
    decoders={"fpn": TargetDecoder(TORCHVISION_FPN, build_fpn)},
)
