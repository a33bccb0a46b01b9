"""Known kinds of checkpoint, one row each; which one a file is, is read from its keys, never from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from slotcon_plugin.convert.names import DETECTRON2, DETECTRON2_FPN, OPENMMLAB_FPN, TORCHVISION_FPN, KeyMap
from slotcon_plugin.errors import ConversionError


@dataclass(frozen=True)
class Source:
    """How one kind of checkpoint names a backbone.

    Attributes:
        kind: its name, for ``--from`` and the metadata.
        about: for the list that an error prints.
        mark: regular expression of a key (whole) that only this kind has; rows are tried in order.
        branches: branch -> regular expression of the prefix that its backbone's keys carry.
        default_branch: what the method's own authors transfer.
        names: key map of what follows the prefix, None for torchvision's names.
        fpn: branch -> regular expression with one group, the canonical name of a pyramid's tensor.
    """

    kind: str
    about: str
    mark: str
    branches: Mapping[str, str]
    default_branch: str
    names: KeyMap | None = None
    fpn: Mapping[str, str] = field(default_factory=dict)


SOURCES = (
    Source(
        kind="slotcon_plugin",
        about="this project's pretraining (teacher.backbone.*, student.backbone.*)",
        mark=r"(module\.)?(student|teacher)\.backbone\.(model\.)?conv1\.weight",
        branches={b: rf"(module\.)?{b}\.backbone\.(model\.)?" for b in ("teacher", "student")},
        default_branch="teacher",
        fpn={b: rf"(?:module\.)?{b}\.decoder\.fpn\.(.+)" for b in ("teacher", "student")},
    ),
    Source(
        kind="densecl",
        about="DenseCL of OpenSelfSup and mmselfsup (backbone.*, encoder_k.0.*)",
        mark=r"(module\.)?encoder_(q\.0|k\.0|k\.module\.0)\.conv1\.weight",
        branches={"student": r"(module\.)?backbone\.", "teacher": r"(module\.)?encoder_k\.(module\.)?0\."},
        default_branch="student",
    ),
    Source(
        kind="moco",
        about="MoCo v1 and v2 (module.encoder_q.* with fc and queue)",
        mark=r"(module\.)?(encoder_q\.fc\..+|queue)",
        branches={"student": r"(module\.)?encoder_q\.", "teacher": r"(module\.)?encoder_k\."},
        default_branch="student",
    ),
    Source(
        kind="pixpro",
        about="PixPro (module.encoder.*, module.encoder_k.*)",
        mark=r"(module\.)?encoder\.conv1\.weight",
        branches={"student": r"(module\.)?encoder\.", "teacher": r"(module\.)?encoder_k\."},
        default_branch="student",
    ),
    Source(
        kind="slotcon",
        about="the reference SlotCon code (module.encoder_k.*, module.encoder_q.*)",
        mark=r"(module\.)?encoder_k\.conv1\.weight",
        branches={"teacher": r"(module\.)?encoder_k\.", "student": r"(module\.)?encoder_q\."},
        default_branch="teacher",
    ),
    Source(
        kind="detectron2",
        about="a backbone under detectron2's names (stem.*, res2.* ... res5.*)",
        mark=r"stem\.conv1\.norm\.weight",
        branches={"backbone": ""},
        default_branch="backbone",
        names=DETECTRON2,
    ),
    Source(
        kind="torchvision",
        about="ResNets of torchvision and timm, bare backbones such as DenseCL's extracted one (conv1.*, layer1.*)",
        mark=r"(module\.)?conv1\.weight",
        branches={"backbone": r"(module\.)?"},
        default_branch="backbone",
    ),
)
"""Order matters where one kind's mark is part of another's keys: DenseCL, MoCo and PixPro have ``encoder_k`` too."""

_FPN_MAPS = (DETECTRON2_FPN, OPENMMLAB_FPN, TORCHVISION_FPN)


def recognise(keys: Iterable[str], where: str) -> Source:
    """The first row whose mark is among the keys.

    Raises:
        ConversionError: none is; lists what the file holds and what is known.
    """
    keys = list(keys)
    for source in SOURCES:
        if any(re.fullmatch(source.mark, key) for key in keys):
            return source
    raise ConversionError(f"{where}: no known kind of checkpoint. {_seen(keys)}\n{known_kinds()}")


def source_of_kind(kind: str) -> Source:
    """The row that ``--from`` names."""
    for source in SOURCES:
        if source.kind == kind:
            return source
    raise ConversionError(f"unknown kind {kind!r}.\n{known_kinds()}")


def select_branch(
    source: Source, state_dict: Mapping[str, Tensor], which: str | None, where: str
) -> tuple[str, dict[str, Tensor], dict[str, Tensor] | None]:
    """One branch's tensors under canonical names.

    Args:
        source: the kind.
        state_dict: the whole file's.
        which: ``student``, ``teacher``, or None for the branch that the method's authors transfer.
        where: the file, for messages.

    Returns:
        The branch, the backbone's tensors (unchecked, may contain ``fc``), the pyramid's or None.

    Raises:
        ConversionError: the kind has no such branch, or no key of it is in the file.
    """
    branch = which or source.default_branch
    if branch not in source.branches:
        raise ConversionError(f"{where} is of kind {source.kind}, which has {list(source.branches)}, no {branch!r}")
    fpn = _pyramid(source, branch, state_dict)
    prefix = re.compile(source.branches[branch])
    weights = {}
    for key, value in state_dict.items():
        match = prefix.match(key)
        if match and not any(table.knows_target(key) for table in _FPN_MAPS):
            name = key[match.end() :]
            weights[source.names.to_canonical(name) if source.names else name] = value
    if not weights:
        raise ConversionError(
            f"{where}: no key matches the {branch} of kind {source.kind} ({prefix.pattern!r}). {_seen(state_dict)}\n"
            f"{known_kinds()}"
        )
    return branch, weights, fpn


def _pyramid(source: Source, branch: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    fpn = {}
    for key, value in state_dict.items():
        match = re.fullmatch(source.fpn[branch], key) if branch in source.fpn else None
        if match:
            fpn[match.group(1)] = value
            continue
        for table in _FPN_MAPS:  # files that this package has written
            if table.knows_target(key):
                fpn[table.to_canonical(key)] = value
    return fpn or None


def _seen(keys: Iterable[str]) -> str:
    keys = list(keys)
    heads = sorted({".".join(key.split(".")[:2]) for key in keys})
    return f"It holds {len(keys)} tensors, under: {', '.join(heads[:12])}{', ...' if len(heads) > 12 else ''}"


def known_kinds() -> str:
    """A line a kind, for error messages and ``--help``."""
    return "known kinds:\n" + "\n".join(f"  {source.kind:15} {source.about}" for source in SOURCES)
