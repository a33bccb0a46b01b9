"""Models of mmdet and mmseg configs: the weights that they name, what they see, how they normalise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def take_named_backbone(model: dict[str, Any]) -> str | None:
    """The checkpoint that a config itself names, taken out of it: weights come through the converters alone."""
    older_spelling = model.pop("pretrained", None)  # mmseg's, which would win over init_cfg
    given = model.backbone.get("init_cfg") or []
    initializers = [given] if isinstance(given, dict) else given
    named = next((one["checkpoint"] for one in initializers if one.get("checkpoint")), None)
    model.backbone.init_cfg = None
    return named or older_spelling


def without_checkpoints(init_cfg: Any) -> list[dict[str, Any]]:
    """What is left of a part's initialisers without those that load a file."""
    initializers = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
    return [one for one in initializers if one.get("type") != "Pretrained"]


def input_convention(model: dict[str, Any]) -> dict[str, Any]:
    """What a config's network sees and is built like: arguments of :func:`~slotcon_plugin.convert.check_compatible`.

    Pixels that the config does not normalise have mean 0 and std 1. Stem and stride are a ResNet's.
    """
    pixels, backbone = model.get("data_preprocessor") or {}, model["backbone"]
    convention = {
        "colour_order": "RGB" if pixels.get("bgr_to_rgb") else "BGR",  # images are loaded as BGR
        "mean": pixels.get("mean") or [0.0] * 3,
        "std": pixels.get("std") or [1.0] * 3,
    }
    kind = backbone["type"].rpartition(".")[2]
    if kind.startswith("ResNet"):
        deep = backbone.get("deep_stem") or kind in ("ResNetV1c", "ResNetV1d")
        convention |= {
            "stem": "deep" if deep else "7x7",
            "stride_in_1x1": backbone.get("style", "pytorch") == "caffe",
        }
    return convention


def parts_of(section: Any) -> Iterator[dict]:
    """Every dict in a piece of config, itself first; one may be changed before the next is asked for."""
    if isinstance(section, dict):
        yield section
        section = section.values()
    elif not isinstance(section, (list, tuple)):
        return
    for value in section:
        yield from parts_of(value)


def replace_sync_bn(section: Any) -> None:
    """Let every layer be normalised without other processes, in place."""
    for part in parts_of(section):
        if part.get("type") == "SyncBN":
            part["type"] = "BN"
