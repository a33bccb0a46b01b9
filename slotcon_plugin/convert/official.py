"""A whole checkpoint of the reference SlotCon code -> one of this project's, to look at, evaluate or train on.

Reference: CVMI-Lab/SlotCon, models/slotcon.py. Its ``state_dict`` is under ``model``, with DDP's ``module.``:
``encoder_{q,k}`` (ResNet without fc), ``projector_{q,k}.mlp`` and ``predictor_slot.mlp`` (linear, BatchNorm, GELU, ...,
linear), ``grouping_{q,k}.slot_embed.weight`` (K, D) and the buffer ``center`` (1, K); q = student, k = teacher. Its
count of teacher updates is not in the file, so a continued training starts its own schedule.
"""

from __future__ import annotations

import math
import pprint
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import slotcon_plugin
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.convert.canonical import canonicalise
from slotcon_plugin.convert.convert import check_out, write
from slotcon_plugin.convert.find import Candidate, as_plain, refuse_holes
from slotcon_plugin.convert.metadata import IMAGENET_INPUT, META_KEY
from slotcon_plugin.convert.names import KeyMap
from slotcon_plugin.convert.network import Network
from slotcon_plugin.convert.tensors import model_tensors
from slotcon_plugin.convert.writers.base import save_content
from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.files import sha256_of

_BRANCHES = (("q", "student"), ("k", "teacher"))
OFFICIAL = KeyMap(
    (
        *((f"{ours}.backbone.{{rest}}", f"encoder_{theirs}.{{rest}}") for theirs, ours in _BRANCHES),
        *((f"{ours}.projector.layers.{{rest}}", f"projector_{theirs}.mlp.{{rest}}") for theirs, ours in _BRANCHES),
        *((f"{ours}.grouping.prototypes", f"grouping_{theirs}.slot_embed.weight") for theirs, ours in _BRANCHES),
        ("student.predictor.layers.{rest}", "predictor_slot.mlp.{rest}"),
        ("center.value", "center"),
    )
)
"""This project's names (left) and the reference's without ``module.`` (right)."""

# Settings of the reference's command line that the model needs -> where they go; (argument, its default, path).
_ARGUMENTS = (
    ("teacher_temp", 0.07, ("grouping", "temperature")),
    ("teacher_temp", 0.07, ("teacher_temperature",)),
    ("student_temp", 0.1, ("student_temperature",)),
    ("center_momentum", 0.9, ("center", "momentum")),
    ("group_loss_weight", 0.5, ("group_loss_weight",)),
    ("teacher_momentum", 0.99, ("teacher_momentum",)),
)


def import_official(
    src: str | Path, out: str | Path, model_class: Callable[..., nn.Module], overwrite: bool = False
) -> dict[str, Any]:
    """Import a reference checkpoint; writes ``OUT.pth`` and ``OUT.py``, the config of its model.

    Args:
        src: ``ckpt_epoch_N.pth`` or ``current.pth`` of the reference code.
        out: checkpoint to write, in mmengine's layout.
        model_class: :class:`slotcon_plugin.models.SlotCon`, which must take the weights strictly; handed in, because
            converters know no models.
        overwrite: whether the two may exist.

    Returns:
        The model settings, read from the file.

    Raises:
        ConversionError: not a whole reference checkpoint, or one whose shapes do not fit together.
    """
    src, out = Path(src), Path(out)
    config_path = out.with_suffix(".py")
    if out.suffix != ".pth":
        raise ConversionError(f"OUT must end in .pth, got {out.name!r}")
    for path in (out, config_path):
        check_out(path, src, overwrite)
    content = load_file(src)
    state_dict, depth = rename(model_tensors(content, str(src)), str(src))
    if not zipfile.is_zipfile(src):
        refuse_holes(state_dict, str(src))
    model = model_settings(state_dict, depth, content.get("args"))
    _check_fit(model_class, model, state_dict, str(src))

    meta = {
        "source_file": src.name,
        "source_sha256": sha256_of(src),
        "kind": "slotcon",
        "epoch": content.get("epoch"),
        "network": Network(f"resnet{depth}").described(),
        **IMAGENET_INPUT,
        "tool_version": slotcon_plugin.__version__,
    }
    pretraining = {
        "method": "slotcon",
        "title": "SlotCon",
        "branch": "teacher",
        **{key: IMAGENET_INPUT[key] for key in ("colour_order", "mean", "std")},
        "backbone": model["backbone"],
        "init": None,
    }
    checkpoint = {"meta": {}, "state_dict": state_dict, META_KEY: meta, PRETRAINING_KEY: pretraining}
    write(out, lambda path: save_content(checkpoint, path))
    write(config_path, lambda path: path.write_text(_config_text(model, src.name), encoding="utf-8"))
    return model


def rename(official: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], int]:
    """The reference's state dict -> this project's, and the backbone's depth.

    Raises:
        ConversionError: a part is missing, or a key is none of the reference's.
    """
    ours: dict[str, Tensor] = {}
    for key, value in official.items():
        dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        ours[OFFICIAL.to_canonical(key.removeprefix("module."))] = as_plain(value, dtype, f"{where}: {key}")
    parts = ("backbone.conv1.weight", "projector.layers.0.weight", "grouping.prototypes")
    needed = [f"{branch}.{part}" for _, branch in _BRANCHES for part in parts]
    needed += ["student.predictor.layers.0.weight", "center.value"]
    for name in needed:
        if name not in ours:
            raise ConversionError(
                f"{where} has no {OFFICIAL.to_target(name)}: not a whole checkpoint of the reference SlotCon "
                "(for a backbone alone use tools/convert_to_*.py)"
            )
    depths = set()
    for branch in ("student", "teacher"):
        prefix = f"{branch}.backbone."
        weights = {key.removeprefix(prefix): ours.pop(key) for key in list(ours) if key.startswith(prefix)}
        complete, network, _ = canonicalise(Candidate(prefix, weights), f"{where} ({branch})")
        ours |= {prefix + name: value for name, value in complete.items()}
        depths.add(network.depth)
    if len(depths) > 1:
        raise ConversionError(f"{where}: student and teacher have different depths, {sorted(depths)}")
    ours["center.value"] = ours["center.value"].reshape(-1)
    ours["teacher_steps"] = torch.zeros((), dtype=torch.int64)
    return ours, depths.pop()


def model_settings(state_dict: Mapping[str, Tensor], depth: int, args: Any = None) -> dict[str, Any]:
    """The config of the model that fits these weights.

    Args:
        state_dict: this project's names; widths, number of layers and K are read from the shapes.
        depth: of the backbone.
        args: the reference's command line (argparse.Namespace) for temperatures and momenta; None = its defaults.
    """
    num_prototypes, dim = state_dict["student.grouping.prototypes"].shape
    model: dict[str, Any] = {
        "type": "SlotCon",
        "data_preprocessor": {"type": "TwoViewPreprocessor"},
        "backbone": {"type": "TorchvisionResNet", "depth": depth},
        "projector": _head_settings(state_dict, "student.projector") | {"out_channels": dim},
        "predictor": _head_settings(state_dict, "student.predictor"),
        "grouping": {"type": "SemanticGrouping", "num_prototypes": num_prototypes},
        "center": {"type": "Center"},
    }
    for argument, default, path in _ARGUMENTS:
        *parents, leaf = path
        place = model[parents[0]] if parents else model
        value = getattr(args, argument, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ConversionError(f"the command line in the file has {argument}={value!r}, which is no number")
        place[leaf] = value
    return model


def _head_settings(state_dict: Mapping[str, Tensor], head: str) -> dict[str, Any]:
    # Linear layers have weights of two or four dimensions, BatchNorm's have one.
    prefix = f"{head}.layers."
    linear = [v for k, v in state_dict.items() if k.startswith(prefix) and k.endswith(".weight") and v.ndim > 1]
    return {"type": "MLPHead", "hidden_channels": linear[0].shape[0], "num_layers": len(linear)}


def _check_fit(
    model_class: Callable[..., nn.Module], model: dict[str, Any], state_dict: Mapping[str, Tensor], where: str
) -> None:
    """The settings must build a model whose every key and shape is that of the weights."""
    settings = {key: value for key, value in model.items() if key not in ("type", "data_preprocessor")}
    with torch.device("meta"):  # shapes alone are asked for
        built = model_class(**settings)
    wanted = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    came = {name: tuple(value.shape) for name, value in state_dict.items()}
    for name in sorted(wanted.keys() | came.keys()):
        if wanted.get(name) != came.get(name):
            raise ConversionError(
                f"{where}: {name} has shape {came.get(name, 'none')}, a SlotCon with the other widths of the file "
                f"has {wanted.get(name, 'none')}"
            )


def _config_text(model: dict[str, Any], source: str) -> str:
    return (
        f"# Written by tools/import_official.py from {source!a}: the model alone, for visualisation and evaluation.\n"
        '# To train on, put load_from = "..." and this model into a config of configs/pretrain/.\n\n'
        'default_scope = "slotcon_plugin"\n'
        'custom_imports = dict(imports=["slotcon_plugin"], allow_failed_imports=False)\n\n'
        f"model = {pprint.pformat(model, sort_dicts=False, width=110)}\n"
    )
