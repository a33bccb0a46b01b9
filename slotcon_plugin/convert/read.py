"""Any known checkpoint file -> canonical backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotcon_plugin.convert.canonical import CanonicalBackbone, backbone_sha256, canonicalise
from slotcon_plugin.convert.metadata import IMAGENET_INPUT, META_KEY, PRETRAINING_KEY
from slotcon_plugin.convert.safe_load import load_file
from slotcon_plugin.convert.sources import recognise, select_branch, source_of_kind
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.files import sha256_of

CONTAINERS = ("state_dict", "model")
"""Where checkpoints keep their weights: mmengine, MoCo and this project; SlotCon, PixPro and detectron2."""

FPN_KEYS = {
    f"{part}.{level}.{leaf}" for part in ("lateral", "output") for level in range(4) for leaf in ("weight", "bias")
}


def read_checkpoint(path: str | Path, which: str | None = None, kind: str | None = None) -> CanonicalBackbone:
    """Read one branch's backbone (and feature pyramid, if there is one) of a checkpoint of any known kind.

    Args:
        path: a file of torch, safetensors, or a detectron2 pickle; read without executing anything in it.
        which: ``teacher`` or ``student``; None takes what the method's authors transfer: what a checkpoint of this
            project declares, else what its kind says (the teacher for SlotCon, the student for MoCo, DenseCL, PixPro).
        kind: a row of :data:`~slotcon_plugin.convert.sources.SOURCES`; None recognises it from the keys.

    Raises:
        ConversionError: unreadable, of no known kind, without that branch, or not a plain ResNet.
    """
    path = Path(path)
    content = load_file(path)
    state_dict = tensors_of(content, str(path))
    source = source_of_kind(kind) if kind else recognise(state_dict, str(path))
    origin, declared = content.get(META_KEY), content.get(PRETRAINING_KEY) or {}
    branch, weights, fpn = select_branch(source, state_dict, which or declared.get("branch"), str(path))
    complete, depth = canonicalise(weights, f"{path} ({source.kind}, {branch})")
    if fpn is not None and set(fpn) != FPN_KEYS:
        odd = sorted(FPN_KEYS ^ set(fpn))[0]
        raise ConversionError(f"{path}: a feature pyramid has keys {sorted(FPN_KEYS)}; {odd} differs")
    meta = {
        "source_file": path.name,
        "source_sha256": sha256_of(path),
        "kind": source.kind,
        "method": declared.get("method") or (origin or {}).get("method") or _method(source.kind, state_dict),
        "branch": branch,
        "depth": depth,
        "fpn": fpn is not None,
        **{name: declared.get(name, value) for name, value in IMAGENET_INPUT.items()},
        **({k: origin[k] for k in IMAGENET_INPUT} | {"origin": origin} if origin else {}),
        "backbone_sha256": backbone_sha256(complete),
    }
    fpn = fpn and {name: value.detach().float().contiguous().clone() for name, value in fpn.items()}
    return CanonicalBackbone(complete, depth, meta, fpn)


def _method(kind: str, keys: Iterable[str]) -> str:
    """The name for tables; checkpoints of this project from before they declared it tell theirs by their parts."""
    if kind != "slotcon_plugin":
        return kind
    parts = ((".grouping.prototypes", "slotcon"), (".decoder.fpn.lateral.0.weight", "vader"))
    return next((method for part, method in parts if any(key.endswith(part) for key in keys)), "unknown")


def tensors_of(content: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a loaded file, wherever it keeps them; numpy arrays become tensors.

    Raises:
        ConversionError: there is none.
    """
    for container in CONTAINERS:
        if isinstance(content.get(container), Mapping):
            content = content[container]
            break
    tensors = {key: torch.as_tensor(value) for key, value in content.items() if isinstance(value, (Tensor, np.ndarray))}
    if not tensors:
        raise ConversionError(
            f"{where} holds no tensors at its top level or under {CONTAINERS}; its keys: {list(content)[:10]}"
        )
    return tensors
