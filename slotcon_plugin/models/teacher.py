"""The teacher: an exponential moving average of the student's parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def make_teacher(student: nn.ModuleDict, parts: Iterable[str]) -> nn.ModuleDict:
    """A copy of the named parts of the student that takes no gradient and drops nothing.

    A part of a part is named by its path: ``'heads.p2.projector'``.
    """
    teacher = nn.ModuleDict()
    for name in parts:
        *path, leaf = name.split(".")
        place = teacher
        for key in path:
            if key not in place:
                place[key] = nn.ModuleDict()
            place = place[key]
        place[leaf] = copy.deepcopy(student.get_submodule(name))
    for module in teacher.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return teacher.requires_grad_(False)


def cosine_momentum(base: float, step: int | Tensor, total: int) -> float:
    """``1 - (1 - base) * (cos(pi * step / total) + 1) / 2``: from ``base`` to 1 (BYOL, used by SlotCon).

    ``total = 0`` keeps ``base``.
    """
    if total <= 0:
        return base
    progress = min(float(step) / total, 1.0)
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


def rise_and_fall_momentum(base: float, step: int | Tensor, total: int) -> float:
    """The cosine at double speed: from ``base`` to 1 in the middle of the run, and back (DeCon's published code).

    The final teacher then follows the student closely, where :func:`cosine_momentum` all but freezes it.
    """
    if total <= 0:
        return base
    return 1.0 - (1.0 - base) * (math.cos(2 * math.pi * min(float(step) / total, 1.0)) + 1.0) / 2.0


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher <- momentum * teacher + (1 - momentum) * student`` for parameters, in fused multi-tensor calls.

    Buffers are left alone: the teacher's BatchNorm statistics are those of its own forward passes, which is part
    of the method. ``student`` may hold more modules than ``teacher``; names decide what belongs together.
    """
    source = dict(student.named_parameters())
    names, targets = zip(*teacher.named_parameters())
    torch._foreach_lerp_(list(targets), [source[name] for name in names], 1.0 - momentum)
