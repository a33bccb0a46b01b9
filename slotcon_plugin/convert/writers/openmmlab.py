"""mmdet and mmsegmentation: torchvision's names under ``state_dict``, for ``init_cfg=dict(type='Pretrained')``.

The backbone's names carry no prefix, the pyramid's start with ``neck.``, those of mmseg's FCN head and FPN head with
``decode_head.``: a config takes the first with ``init_cfg=dict(type='Pretrained', checkpoint=OUT)`` on the backbone,
the others with ``prefix='neck.'`` or ``prefix='decode_head.'`` added, on the neck or the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from slotcon_plugin.convert.decoders import GROUP, Form, group_norm
from slotcon_plugin.convert.names import MMSEG_FCN, MMSEG_SEMANTIC, OPENMMLAB_FPN, TIMM_BACKBONE, TORCHVISION
from slotcon_plugin.convert.network import Network
from slotcon_plugin.convert.writers.base import NONE, Runnable, Target, TargetDecoder, one_name, save_torch
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


def _part_of_config(path: str, name: str, kind: str) -> dict | str:
    """The config's neck or head, or why it is none of that kind."""
    part = _model_of_config(path).get(name) or {}
    if isinstance(part, list):
        return f"the config's {name} is {len(part)} in a row"
    return part if part.get("type") == kind else NONE


def config_fpn(path: str, maps: int) -> Form | str:
    """Of the config's FPN neck, if it takes all stage maps: its weights are numbered from the first one taken."""
    neck = _part_of_config(path, "neck", "FPN")
    if isinstance(neck, str):
        return neck
    taken, start, end = len(neck["in_channels"]), neck.get("start_level", 0), neck.get("end_level", -1)
    if taken != maps or start != 0 or end not in (-1, maps - 1):
        return f"the config's takes maps {start} to {end % taken} of {taken}, the checkpoint's all {maps}"
    norm = one_name((neck.get("norm_cfg") or {}).get("type"))
    if norm and neck.get("no_norm_on_lateral"):
        return "the config's has no norm on its lateral convolutions (no_norm_on_lateral)"
    return neck["out_channels"], norm


def build_fpn(library: str, channels: Sequence[int], form: Form) -> Runnable:
    """The library's FPN neck on given stage maps."""
    width, norm = form
    norm_cfg = {"type": "BN"} if norm else None
    neck = import_module(f"{library}.models.necks").FPN(
        list(channels), width, num_outs=len(channels), norm_cfg=norm_cfg
    )
    return Runnable(nn.ModuleDict({"neck": neck}), lambda net, maps: tuple(net["neck"](maps)))


def config_semantic(path: str, maps: int) -> Form | str:
    """Of the config's FPN head, if it sees the whole pyramid."""
    head = _part_of_config(path, "decode_head", "FPNHead")
    if isinstance(head, str):
        return head
    norm, strides = head.get("norm_cfg") or {}, head.get("feature_strides", ())
    seen = list(head.get("in_index", ()))
    if seen != list(range(maps)) or len(strides) != maps:
        return NONE
    if any(stride <= strides[0] for stride in strides[1:]):  # a level that is not doubled
        return NONE
    blocks = tuple(max(1, int(math.log2(stride) - math.log2(strides[0]))) for stride in strides)
    grouped = norm.get("type") == "GN"
    norm = group_norm(head["channels"] // norm["num_groups"]) if grouped else one_name(norm.get("type"))
    return head["in_channels"][0], head["channels"], norm, blocks


def build_semantic(channels: Sequence[int], form: Form) -> Runnable:
    """mmseg's FPN head without its classifier."""
    from mmengine.registry import DefaultScope

    pyramid, width, _, blocks = form
    # a level of the finest's stride would not be doubled behind its block; the levels behind it are
    strides = [1] + [2**count for count in blocks[1:]]
    build = import_module("mmseg.models.decode_heads").FPNHead
    with DefaultScope.overwrite_default_scope("mmseg"):
        head = build(
            feature_strides=strides, in_channels=[pyramid] * len(blocks), in_index=list(range(len(blocks))),
            channels=width, num_classes=2, dropout_ratio=0, norm_cfg={"type": "GN", "num_groups": width // GROUP},
        )  # fmt: skip
    head.conv_seg = nn.Identity()
    module = nn.ModuleDict({"decode_head": head})
    return Runnable(module, lambda net, maps: (net["decode_head"](maps),))


def config_fcn(path: str, maps: int) -> Form | str:
    """Of the config's FCN head, if it is one of 3x3 with norm."""
    head = _part_of_config(path, "decode_head", "FCNHead")
    if isinstance(head, str):
        return head
    norm = one_name((head.get("norm_cfg") or {}).get("type"))
    if norm != "BN" or head.get("kernel_size", 3) != 3:
        return NONE
    transform, index = head.get("input_transform"), head.get("in_index", -1)
    seen = list(index) if isinstance(index, (list, tuple)) else [index % maps]
    if transform not in (None, "resize_concat") or seen != list(range(maps - len(seen), maps)):
        return NONE
    return len(seen), head["channels"], head.get("num_convs", 2)


def build_fcn(channels: Sequence[int], form: Form) -> Runnable:
    """mmseg's FCN head without its classifier."""
    from mmengine.registry import DefaultScope

    stages, width, num_convs = form
    in_channels = channels[-stages:]
    build = import_module("mmseg.models.decode_heads").FCNHead
    with DefaultScope.overwrite_default_scope("mmseg"):  # its loss is looked up by name
        head = build(
            in_channels=list(in_channels), in_index=list(range(-len(in_channels), 0)), input_transform="resize_concat",
            channels=width, num_convs=num_convs, num_classes=2, concat_input=False, norm_cfg={"type": "BN"},
        )  # fmt: skip
    module = nn.ModuleDict({"decode_head": nn.ModuleDict({"convs": head.convs})})
    return Runnable(module, lambda net, maps: (net["decode_head"]["convs"](head._transform_inputs(maps)),))


def _target(library: str, **heads: TargetDecoder) -> Target:
    return Target(
        name=library,
        imports=f"{library}.models",
        suffixes=(".pth", ".pt"),
        names={"torchvision": TORCHVISION, "timm": TIMM_BACKBONE},
        build_backbone=partial(build_backbone, library),
        save=save_torch,
        decoders={"fpn": TargetDecoder(OPENMMLAB_FPN, partial(build_fpn, library), config_fpn), **heads},
    )


MMDET_TARGET = _target("mmdet")
MMSEG_TARGET = _target(
    "mmseg",
    semantic=TargetDecoder(MMSEG_SEMANTIC, build_semantic, config_semantic),
    fcn=TargetDecoder(MMSEG_FCN, build_fcn, config_fcn),
)
