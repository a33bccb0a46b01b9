"""detectron2: a pickle of numpy arrays, as its model zoo has them.

The names are those of the bottom-up ResNet alone (``stem.conv1.weight`` ... ``res5.2.conv3.norm.bias``), and the file
asks for detectron2's matching by suffix: one file so serves R50-FPN, where the backbone is
``backbone.bottom_up.*``, and R50-C4, where it is split between ``backbone.*`` and ``roi_heads.res5.*``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from slotcon_plugin.convert.decoders import Form
from slotcon_plugin.convert.metadata import META_KEY
from slotcon_plugin.convert.names import DETECTRON2, DETECTRON2_FPN, TIMM_BACKBONE
from slotcon_plugin.convert.network import Network, network_of_backbone
from slotcon_plugin.convert.writers.base import NONE, Runnable, Target, TargetDecoder, one_name
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.resnet import BASIC_BLOCK_DEPTHS

STAGES = ("res2", "res3", "res4", "res5")


def build_backbone(network: Network, config: str | None) -> Runnable:
    """The ResNet that ``config`` (a yaml; default: the recipe's settings) describes, all four stages returned."""
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    cfg = _read_config(config) if config else get_cfg()
    if network.library == "timm":
        return _build_timm(network, cfg, config)
    depth = network.depth
    if wanted := network_of_config(cfg):
        raise ConversionError(f"{config} wants {wanted}, the checkpoint is {network}")
    if config is None:
        cfg.MODEL.RESNETS.DEPTH = depth
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        if depth in BASIC_BLOCK_DEPTHS:
            cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    elif depth != cfg.MODEL.RESNETS.DEPTH:
        raise ConversionError(f"{config} wants ResNet-{cfg.MODEL.RESNETS.DEPTH}, the checkpoint is ResNet-{depth}")
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.RES5_DILATION = 1
    cfg.MODEL.RESNETS.OUT_FEATURES = list(STAGES)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    module = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    return Runnable(module, lambda net, image: tuple(map(net(image).get, STAGES)))


def _build_timm(network: Network, cfg: Any, config: str | None) -> Runnable:
    from detectron2.layers import ShapeSpec

    from slotcon_plugin.d2_timm import add_timm_config, build_timm_backbone

    if config is None:
        add_timm_config(cfg)
        cfg.MODEL.TIMM.NAME = network.name
        cfg.MODEL.TIMM.OPTIONS = [part for option in network.options.items() for part in option]
    else:
        wanted = network_of_config(cfg)
        if wanted is None or wanted.name != network.name:
            wanted = wanted or f"ResNet-{cfg.MODEL.RESNETS.DEPTH}"
            raise ConversionError(f"{config} wants {wanted}, the checkpoint is {network}")
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.TIMM.OPTIONS = without_strides(cfg.MODEL.TIMM.OPTIONS)
    maps = build_timm_backbone(cfg, ShapeSpec(channels=3))
    return Runnable(maps.net, lambda net, image: tuple(maps(image).values()))


def network_of_config(cfg: Any) -> Network | None:
    """timm's network that a config of detectron2 builds; None if it builds another."""
    if not cfg.MODEL.BACKBONE.NAME.startswith("build_timm_"):
        return None
    timm = cfg.MODEL.TIMM
    options = dict(zip(timm.OPTIONS[::2], timm.OPTIONS[1::2], strict=True))
    return network_of_backbone({"type": "TimmBackbone", "name": timm.NAME, **options})


def without_strides(options: list) -> list:
    """Options in turn without those that change maps and leave weights as they are."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return [part for name, value in pairs if name != "output_stride" for part in (name, value)]


def _read_config(path: str) -> Any:
    from detectron2.config import get_cfg
    from yaml import YAMLError

    cfg = get_cfg()
    cfg.set_new_allowed(True)  # keys of other tools say nothing about the backbone
    try:
        cfg.merge_from_file(path)
    except (OSError, AssertionError, KeyError, ValueError, TypeError, AttributeError, YAMLError) as error:
        raise ConversionError(f"{path} cannot be read as a transfer config: {error}") from error
    return cfg


def config_fpn(path: str, maps: int) -> Form | str:
    """Of the config's feature pyramid."""
    cfg = _read_config(path)
    if "fpn" not in cfg.MODEL.BACKBONE.NAME:
        return NONE
    if (fuse := cfg.MODEL.FPN.FUSE_TYPE) != "sum":
        return f"the config's takes the {fuse} of its levels (FPN.FUSE_TYPE), the checkpoint's their sum"
    return cfg.MODEL.FPN.OUT_CHANNELS, one_name(cfg.MODEL.FPN.NORM)


def build_fpn(channels: Sequence[int], form: Form) -> Runnable:
    """detectron2's FPN on given stage maps."""
    width, norm = form
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import FPN, Backbone

    class GivenMaps(Backbone):
        """A bottom-up without weights: passes the stage maps on."""

        def output_shape(self) -> dict[str, ShapeSpec]:
            return {s: ShapeSpec(channels=c, stride=4 * 2**i) for i, (s, c) in enumerate(zip(STAGES, channels))}

        def forward(self, maps: tuple[Tensor, ...]) -> dict[str, Tensor]:
            return dict(zip(STAGES, maps))

    module = FPN(GivenMaps(), list(STAGES), width, norm="BN" if norm else "")
    return Runnable(module, lambda net, maps: tuple(map(net(maps).get, ("p2", "p3", "p4", "p5"))))


class _PlainPickler(pickle.Pickler):
    """Spells arrays with public names only, so that numpy 1 and numpy 2 both read the file."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype, bytearray(obj.tobytes()))
        return NotImplemented


def save(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], path: Path) -> None:
    """Write what ``DetectionCheckpointer`` recognises as a file of its own model zoo."""
    content = {
        "model": {name: value.numpy() for name, value in tensors.items()},
        "__author__": "slotcon_plugin",
        "matching_heuristics": True,
        META_KEY: dict(meta),
    }
    with path.open("wb") as file:
        _PlainPickler(file, protocol=4).dump(content)


DETECTRON2_TARGET = Target(
    name="detectron2",
    imports="detectron2.modeling",
    suffixes=(".pkl",),
    names={"torchvision": DETECTRON2, "timm": TIMM_BACKBONE},
    build_backbone=build_backbone,
    save=save,
    decoders={"fpn": TargetDecoder(DETECTRON2_FPN, build_fpn, config_fpn, halved=True)},
)
