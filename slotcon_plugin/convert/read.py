"""Any checkpoint file with a plain ResNet or a named network of timm's in it -> canonical backbone."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slotcon_plugin.checkpoints.runs import locate
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.convert.canonical import CanonicalBackbone, backbone_sha256, canonicalise
from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.convert.find import Candidate, anchor_of, as_plain, choose, find_candidates, refuse_holes, seen
from slotcon_plugin.convert.metadata import IMAGENET_INPUT, META_KEY, UNKNOWN, UNKNOWN_INPUT
from slotcon_plugin.convert.names import DETECTRON2, SEQUENTIAL, KeyMap
from slotcon_plugin.convert.network import Network, foreign_options, network_of_backbone
from slotcon_plugin.convert.sources import known_kinds, recognise, refuse_look_alike
from slotcon_plugin.convert.tensors import tensors_of
from slotcon_plugin.declaration import PRETRAINING_KEY, whole_title
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.files import sha256_of
from slotcon_plugin.resnet import BLOCKS

_ANCHOR = "layer1.0.conv1.weight"
_SPELLINGS = (None, DETECTRON2, SEQUENTIAL)
_TORCHVISIONS = {f"resnet{depth}" for depth in BLOCKS}  # timm's of these names have its names, too


def read_checkpoint(
    path: str | Path,
    branch: str | None = None,
    kind: str | None = None,
    prefix: str | None = None,
    declared: Mapping[str, Any] | None = None,
    network: Network | None = None,
) -> CanonicalBackbone:
    """Read one branch's backbone (and this project's decoder, if there is one) of a checkpoint.

    Args:
        path: a file of torch, safetensors, or a detectron2 pickle; read without executing anything in it. Also a
            run's work dir, for its newest whole checkpoint; ``torchvision://resnet50`` and ``detectron2://...``, if
            the file lies in that library's cache.
        branch: ``teacher`` or ``student``; None takes what the method's authors transfer (the teacher for SlotCon, the
            student for MoCo, DenseCL and PixPro), or the only one.
        kind: a row of :data:`~slotcon_plugin.convert.sources.SOURCES`; None recognises it from the keys.
        prefix: of the backbone's keys, where a file holds several and no word tells them apart.
        declared: ``colour_order``, ``mean``, ``std`` that the weights were trained with, where the file does not say.
        network: that is wanted; None = the one that this project's file declares, else a plain ResNet.

    Raises:
        ConversionError: unreadable, damaged, ambiguous, without that branch, or of another network than is wanted.
    """
    path = locate(path)
    content = load_file(path)
    tensors = tensors_of(content, str(path))
    origin, told = _dict(content, META_KEY, path), _dict(content, PRETRAINING_KEY, path)
    if kind is None:
        refuse_look_alike(str(path), content)
    source, why = recognise(tensors, kind or ("slotcon_plugin" if told else None))
    if origin and source.kind == UNKNOWN:
        source, why = recognise((), "converted")

    stated = _declared_network(origin, told)
    if not (stated or network) and told.get("backbone"):
        _refuse_unknown_backbone(path, told["backbone"])
    network = _network_of(path, stated, network)
    anchor, spellings = _ANCHOR, _SPELLINGS
    if network and network.library == "timm" and network.name not in _TORCHVISIONS:
        anchor, spellings = anchor_of(network.shapes), (None,)
    candidates = [c for spelling in spellings for c in find_candidates(tensors, anchor, spelling)]
    if not candidates:
        raise ConversionError(
            f"{path} holds no {network or 'ResNet'}: no key ends with {anchor}. {seen(tensors)}\n"
            f"Another network of timm's is named with --network convnext_tiny. {known_kinds()}"
        )
    default = told.get("branch", source.default_branch)
    chosen, branch = choose(candidates, str(path), branch, prefix, default, source.branches)
    where = f"{path} ({source.kind}, {branch})"
    complete, network, left_over = canonicalise(chosen, where, network)
    decoders, left_out = {}, {}
    if origin or source.kind == "slotcon_plugin":
        maps = network.indices_of(told.get("backbone") or {})
        decoders, left_out = _read_decoders(tensors, chosen, network, maps, where)
    digest = backbone_sha256({name: complete[name] for name in network.shapes})
    if not zipfile.is_zipfile(path):
        refuse_holes(CanonicalBackbone(complete, network, {}, decoders).weights, str(path))
    if origin and origin.get("backbone_sha256", digest) != digest:
        raise ConversionError(f"{path}: the weights are not those that this package once wrote into it: damaged")
    known = dict(IMAGENET_INPUT if source.imagenet_input else UNKNOWN_INPUT)
    if network.library == "timm":
        known = dict.fromkeys(("colour_order", "mean", "std"), UNKNOWN)
    known |= {name: value for name, value in {**origin, **told}.items() if name in known}
    meta = {
        "source_file": path.name,
        "source_sha256": sha256_of(path),
        "kind": source.kind,
        "recognised": why,
        "method": told.get("method") or origin.get("method") or _method(source.kind, tensors),
        "branch": branch,
        "prefix": chosen.prefix,
        "left_over": left_over,
        "network": network.described(),
        **{name: name in decoders for name in DECODERS},
        **{f"{name}_left_out": reason for name, reason in left_out.items()},
        **known,
        **_checked_input(declared or {}),
        **({"title": whole_title(told), "init": told.get("init")} if told.get("title") else {}),
        **({name: origin[name] for name in ("title", "init") if name in origin}),
        **({"origin": origin} if origin else {}),
        "backbone_sha256": digest,
    }
    return CanonicalBackbone(complete, network, meta, decoders)


def _declared_network(origin: Mapping[str, Any], told: Mapping[str, Any]) -> Network | None:
    if "network" in origin:
        return Network(**origin["network"])
    return network_of_backbone(told["backbone"]) if told.get("backbone") else None


def _refuse_unknown_backbone(path: Path, backbone: Mapping[str, Any]) -> None:
    """Keys like a ResNet's do not make one: activations, strides and padding are not in them."""
    if foreign := foreign_options(backbone):
        options = ", ".join(f"{key}={value!r}" for key, value in backbone.items() if key != "type")
        unknown = ", ".join(f"{key}={value!r}" for key, value in foreign.items())
        raise ConversionError(
            f"{path} was pretrained with a {backbone.get('type')}({options}), which cannot be converted: with "
            f"{unknown} its weights may mean something else than a plain ResNet's. If they mean the same, say so: "
            "--network resnet50. `slotcon evaluate` and `slotcon embed` take the network as it is: name the run's work "
            "dir in place of the file, or its config with --config"
        )


def _network_of(path: Path, declared: Network | None, wanted: Network | None) -> Network | None:
    """The wanted one, if a file does not say that it holds another: shapes alone would not tell some of them apart."""
    if declared and wanted and not wanted.computes_like(declared):
        raise ConversionError(
            f"{path} says that it holds {declared}, and {wanted} was asked for. Ask for the one that it holds, under "
            "the same name and with the same options; img_size fits it to photos of another size"
        )
    return wanted or declared


def _dict(content: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ConversionError(f"{path}: {key!r} should be a dict, it is a {type(value).__name__}: damaged?")
    return value


def _read_decoders(
    tensors: Mapping[str, Tensor], backbone: Candidate, network: Network, maps: tuple[int, ...], where: str
) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Decoders of the same branch under canonical names, and why one that is there is not taken.

    ``maps``: which of the network's stages they were pretrained on.
    """
    # Frameworks' own files name no backbone; of timm's networks they have ``model.`` before each name.
    within = r"(backbone\.)?model\.$|backbone\.$" if network.library == "timm" else r"backbone\.$"
    branch = re.sub(within, "", backbone.prefix)
    own = {key.removeprefix(branch): value for key, value in tensors.items() if key.startswith(branch)}
    found = {name: part for name, kind in DECODERS.items() if (part := _renamed(own, kind.spellings))}
    chosen = {match[1] for key in own if (match := re.match(r"heads\.p(\d+)\.", key))}
    left_out = {}
    if "fpn" in found and chosen and len(chosen) < len(network.channels):
        del found["fpn"]
        left_out["fpn"] = f"it was pretrained at {', '.join(f'p{level}' for level in sorted(chosen))} alone"
    decoders = {}
    for name, part in found.items():
        kind = DECODERS[name]
        form = kind.form(part, network.channels)
        seen = kind.sees(form, len(network.channels))
        if maps[-seen:] != network.indices[-seen:]:
            left_out[name] = f"it was pretrained on stages {maps} of {network} (out_indices), not on {network.indices}"
            continue
        shapes = kind.shapes(form, network.channels)
        decoders[name] = _whole(part, shapes, f"{where}: {{}} of the {kind.title}")
    return decoders, left_out


def _renamed(tensors: Mapping[str, Tensor], spellings: Iterable[KeyMap]) -> dict[str, Tensor]:
    return {
        names.to_canonical(key): value
        for key, value in tensors.items()
        for names in spellings
        if names.knows_target(key)
    }


def _whole(part: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> dict[str, Tensor]:
    """A decoder with every tensor that it must have, and none besides."""
    for name in sorted(shapes.keys() | part.keys()):
        if name not in part or name not in shapes or tuple(part[name].shape) != shapes[name]:
            came = tuple(part[name].shape) if name in part else "none"
            raise ConversionError(f"{what.format(name)} has shape {came}, expected {shapes.get(name, 'none')}")
    counter = "num_batches_tracked"
    return {
        name: as_plain(part[name], torch.int64 if name.endswith(counter) else torch.float32, what.format(name))
        for name in shapes
    }


def _method(kind: str, keys: Iterable[str]) -> str:
    """The name for tables; checkpoints of this project from before they declared it tell theirs by their parts."""
    if kind != "slotcon_plugin":
        return kind
    parts = ((".grouping.prototypes", "slotcon"), (".decoder.fpn.lateral.0.weight", "vader"))
    return next((method for part, method in parts if any(key.endswith(part) for key in keys)), UNKNOWN)


def _checked_input(declared: Mapping[str, Any]) -> dict[str, Any]:
    declared = {name: value for name, value in declared.items() if value is not None}
    if declared.get("colour_order", "RGB") not in ("RGB", "BGR"):
        raise ConversionError(f"colour_order must be RGB or BGR, got {declared['colour_order']!r}")
    for name in ("mean", "std"):
        values = declared.get(name, [1, 1, 1])
        if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
            raise ConversionError(f"{name} must be three numbers for pixels in 0..255 (std positive), got {values}")
    return declared
