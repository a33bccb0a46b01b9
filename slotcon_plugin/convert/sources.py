"""Kinds of checkpoint, a row each: what their keys mean, beyond that a ResNet lies under some prefix."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.errors import ConversionError


@dataclass(frozen=True)
class Source:
    """What is known about one kind of checkpoint.

    Attributes:
        kind: its name, for ``--kind``, the metadata and the tables.
        about: for the list that an error prints.
        has: regular expressions of dotted parts of keys that this kind has, each in some key; none = never recognised
            by keys, only declared.
        lacks: the same, in no key.
        default_branch: what the method's own authors transfer, where the file has two.
        branches: branch -> how its prefix begins, where the words in it would mislead.
        imagenet_input: whether the method's code is known to train on RGB with ImageNet's mean and std.
    """

    kind: str
    about: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    default_branch: str | None = None
    branches: Mapping[str, str] | None = None
    imagenet_input: bool = True


_TEACHER_ENCODER = "(encoder_k|backbone_momentum)"

SOURCES = (
    Source("dino", "DINO (teacher and student with head.last_layer)", (r"\w*head\.last_layer",), (), "teacher"),
    Source(
        "slotcon_plugin",
        "this project's pretraining (teacher.backbone.*, student.backbone.*)",
        (r"(student|teacher)\.backbone",),
        default_branch="teacher",
    ),
    Source("densecl", "DenseCL (encoder_k, queue2)", ("queue2", _TEACHER_ENCODER), (), "student"),
    Source("mocov3", "MoCo v3 (base_encoder, momentum_encoder)", ("base_encoder", "momentum_encoder"), (), "student"),
    Source("moco", "MoCo v1 and v2 (encoder_k, queue)", ("queue", _TEACHER_ENCODER), (), "student"),
    Source("pixpro", "PixPro (encoder, encoder_k, projector_k)", (r"projector_k\.linear1",), ("predictor",), "student"),
    Source(
        "slotcon", "the reference SlotCon code (encoder_k, grouping_k)", (r"grouping_[qk]\.slot_embed",), (), "teacher"
    ),
    Source("byol", "BYOL (online or backbone, target_net)", (r"target_(net|network|encoder)",), (), "student"),
    Source("swav", "SwAV (projection_head, prototypes)", ("projection_head", r"prototypes(\.\w+)?\.weight")),
    Source("vissl", "VISSL (_feature_blocks)", ("_feature_blocks",)),
    Source(
        "mmengine_ema",
        "mmengine with an EMA hook, which stores the average as state_dict",
        ("ema_state_dict",),
        default_branch="teacher",
        branches={"teacher": r"state_dict\.", "student": r"ema_state_dict\."},
        imagenet_input=False,
    ),
    Source("timm_ema", "timm with EMA weights", ("state_dict_ema",), (), "teacher", imagenet_input=False),
    Source("converted", "a backbone that tools/convert_to_*.py has written; what it came from is in the file"),
    Source("torchvision", "torchvision's own weights; only if declared, the keys are those of any ResNet"),
    Source(UNKNOWN, "any other file with one plain ResNet under some prefix", imagenet_input=False),
)
"""Tried in order. The last row takes what no other does: its method and its input convention are not known."""

_LOOK_ALIKES = re.compile(r"resnet(aa|blur)\d+\w*")
"""timm's ResNets with anti-aliased or blurred pooling: the keys of plain ones, but another network."""


def recognise(keys: Iterable[str], kind: str | None = None) -> tuple[Source, str]:
    """The row of a file, and why it is that one.

    Args:
        keys: of all tensors.
        kind: as declared; None = by the keys.

    Raises:
        ConversionError: there is no such kind.
    """
    if kind is not None:
        for source in SOURCES:
            if source.kind == kind:
                return source, "declared by the file or the user"
        raise ConversionError(f"unknown kind {kind!r}.\n{known_kinds()}")
    lines = "\n".join(keys)
    for source in SOURCES:
        if any(_has(lines, mark) for mark in source.lacks):
            continue
        if source.has and all(_has(lines, mark) for mark in source.has):
            return source, f"by its keys: {source.about}"
    return SOURCES[-1], "a ResNet, but nothing says who trained it and on which pixels"


def _has(lines: str, mark: str) -> bool:
    return re.search(rf"(?:^|\.){mark}(?:\.|$)", lines, re.MULTILINE) is not None


def refuse_look_alike(path: str, content: Mapping[str, Any]) -> None:
    """Refuse networks that only their declared architecture tells from a plain ResNet.

    Raises:
        ConversionError: the file's path, or the architecture or command line stored in it, names one.
    """
    args = vars(content["args"]) if isinstance(content.get("args"), Namespace) else {}
    told = (
        path,
        content.get("arch"),
        content.get("architecture"),
        args.get("arch"),
        args.get("model"),
    )
    for text in told:
        if found := _LOOK_ALIKES.search(str(text).lower()):
            raise ConversionError(
                f"{path}: {found.group()} has the keys of a plain ResNet but pools otherwise, and would give other "
                "features. If the name misleads, declare the kind (--kind unknown)."
            )


def known_kinds() -> str:
    """A line a kind, for error messages and ``--help``."""
    return "known kinds:\n" + "\n".join(f"  {source.kind:15} {source.about}" for source in SOURCES)
