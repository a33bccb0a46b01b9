"""mmdet and mmsegmentation: torchvision's names under ``state_dict``, for ``init_cfg=dict(type='Pretrained')``.

The backbone's names carry no prefix, the pyramid's start with ``neck.``, those of mmseg's FCN head with
``decode_head.``: a config takes the first with ``init_cfg=dict(type='Pretrained', checkpoint=OUT)`` on the backbone,
the others with ``prefix='neck.'`` or ``prefix='decode_head.'`` added, on the neck or the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from slotcon_plugin.convert.names import MMSEG_FCN, OPENMMLAB_FPN, TIMM_BACKBONE, TORCHVISION
from slotcon_plugin.convert.network import Network
from slotcon_plugin.convert.writers.base import Runnable, Target, one_name, save_torch
from slotcon_plugin.errors import ConversionError

# Settings of a config's backbone that change neither the weights' names nor their meaning.
_INDIFFERENT = (
    "strides",
    "dilations",
    "contract_dilation",
    "out_indices",
    "frozen_stages",
    "norm_eval",
    "init_cfg",
)


def build_backbone(library: str, network: Network, config: str | None) -> Runnable:
    """The library's ResNet as ``config`` (default: the recipe's settings) describes it, all four stages returned."""
    registry = import_module(f"{library}.registry").MODELS
    import_module(f"{library}.models.backbones")  # registers them
    if network.library == "timm":
        return _build_timm(registry, network, config)
    depth = network.depth
    settings = {"type": "ResNet", "depth": depth, "style": "pytorch"}
    if config is not None:
        settings = _model_of_config(config)["backbone"]
        if settings.get("depth") != depth:
            raise ConversionError(f"{config} wants depth={settings.get('depth')}, the checkpoint is ResNet-{depth}")
    if config and registry.get(settings["type"]) is None:
        raise ConversionError(f"{config} wants a {settings['type']}, which {library} does not have")
    module = registry.build(
        {
            "_scope_": library,  # whatever mmengine's default is in this process
            **{key: value for key, value in settings.items() if key not in _INDIFFERENT},
            "norm_cfg": {"type": "BN"},
            "out_indices": (0, 1, 2, 3),
        }
    )
    return Runnable(module, lambda net, image: tuple(net(image)))


def _build_timm(registry: Any, network: Network, config: str | None) -> Runnable:
    settings: dict = {"type": "slotcon_plugin.TimmBackbone", "name": network.name, **network.options}
    if config is not None:
        settings = _model_of_config(config)["backbone"]
        if settings.get("name") != network.name:
            wanted = settings.get("name") or f"{settings['type']} {settings.get('depth', '')}"
            raise ConversionError(f"{config} wants {wanted}, the checkpoint is {network}")
    skipped = {*_INDIFFERENT, "output_stride"}
    module = registry.build({key: value for key, value in settings.items() if key not in skipped})
    return Runnable(module, lambda net, image: tuple(net(image)))


def _model_of_config(path: str) -> dict:
    from mmengine.config import Config
    from mmengine.config.utils import ConfigParsingError

    try:
        model = Config.fromfile(path).get("model", {})
    except (OSError, SyntaxError, ConfigParsingError, KeyError, TypeError) as error:
        raise ConversionError(f"{path} cannot be read as a transfer config: {error}") from error
    if "backbone" not in model:
        raise ConversionError(f"{path} has no model.backbone: not a config of a detector or segmenter")
    return model.to_dict()


def config_fpn(path: str) -> tuple[int, str | None] | None:
    """Width and norm of the config's FPN neck."""
    neck = _model_of_config(path).get("neck") or {}
    norm = (neck.get("norm_cfg") or {}).get("type")
    return (neck["out_channels"], one_name(norm)) if neck.get("type") == "FPN" else None


def build_fpn(library: str, channels: tuple[int, ...], width: int, norm: bool) -> Runnable:
    """The library's FPN neck on given stage maps."""
    norm_cfg = {"type": "BN"} if norm else None
    neck = import_module(f"{library}.models.necks").FPN(list(channels), width, num_outs=4, norm_cfg=norm_cfg)
    return Runnable(nn.ModuleDict({"neck": neck}), lambda net, maps: tuple(net["neck"](maps)))


def config_fcn(path: str, maps: int) -> tuple[int, int, int] | None:
    """What the config's FCN head is, if it is one of 3x3 with norm.

    Args:
        path: of the config.
        maps: how many stage maps its backbone has.

    Returns:
        How many of the last maps it sees side by side, its width, its number of convolutions.
    """
    head = _model_of_config(path).get("decode_head") or {}
    norm = one_name((head.get("norm_cfg") or {}).get("type"))
    if head.get("type") != "FCNHead" or norm != "BN" or head.get("kernel_size", 3) != 3:
        return None
    transform, index = head.get("input_transform"), head.get("in_index", -1)
    seen = list(index) if isinstance(index, (list, tuple)) else [index % maps]
    if transform not in (None, "resize_concat") or seen != list(range(maps - len(seen), maps)):
        return None
    return len(seen), head["channels"], head.get("num_convs", 2)


def build_fcn(in_channels: Sequence[int], width: int, num_convs: int) -> Runnable:
    """mmseg's FCN head without its classifier."""
    from mmengine.registry import DefaultScope

    build = import_module("mmseg.models.decode_heads").FCNHead
    with DefaultScope.overwrite_default_scope("mmseg"):  # its loss is looked up by name
        head = build(
            in_channels=list(in_channels), in_index=list(range(-len(in_channels), 0)), input_transform="resize_concat",
            channels=width, num_convs=num_convs, num_classes=2, concat_input=False, norm_cfg={"type": "BN"},
        )  # fmt: skip
    module = nn.ModuleDict({"decode_head": nn.ModuleDict({"convs": head.convs})})
    return Runnable(module, lambda net, maps: (net["decode_head"]["convs"](head._transform_inputs(maps)),))


def _target(library: str) -> Target:
    return Target(
        name=library,
        imports=f"{library}.models",
        suffixes=(".pth", ".pt"),
        names={"torchvision": TORCHVISION, "timm": TIMM_BACKBONE},
        fpn_names=OPENMMLAB_FPN,
        build_backbone=partial(build_backbone, library),
        build_fpn=partial(build_fpn, library),
        config_fpn=config_fpn,
        save=save_torch,
        **({"fcn_names": MMSEG_FCN, "build_fcn": build_fcn, "config_fcn": config_fcn} if library == "mmseg" else {}),
    )


MMDET_TARGET = _target("mmdet")
MMSEG_TARGET = _target("mmseg")
