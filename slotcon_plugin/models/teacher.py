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
        elif hasattr(module, "drop_prob"):  # stochastic depth, timm's
            module.drop_prob = 0.0
    return teacher.requires_grad_(False)


def cosine_momentum(base: float, step: int | Tensor, total: int) -> float | Tensor:
    """``1 - (1 - base) * (cos(pi * step / total) + 1) / 2``: from ``base`` to 1 (BYOL, used by SlotCon).

    ``total = 0`` keeps ``base``. A tensor gives a tensor, so that a device need not be waited for.
    """
    return base if total <= 0 else 1.0 - (1.0 - base) * (_cosine(math.pi, step, total) + 1.0) / 2.0


def rise_and_fall_momentum(base: float, step: int | Tensor, total: int) -> float | Tensor:
    """The cosine at double speed: from ``base`` to 1 in the middle of the run, and back (DeCon's published code).

    The final teacher then follows the student closely, where :func:`cosine_momentum` all but freezes it.
    """
    return base if total <= 0 else 1.0 - (1.0 - base) * (_cosine(2 * math.pi, step, total) + 1.0) / 2.0


def _cosine(angle: float, step: int | Tensor, total: int) -> float | Tensor:
    if isinstance(step, Tensor):
        return (step.double() / total).clamp(max=1.0).mul(angle).cos()
    return math.cos(angle * min(step / total, 1.0))


def parameter_pairs(teacher: nn.Module, student: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The teacher's parameters and the student's of the same names; ``student`` may hold more modules."""
    source = dict(student.named_parameters(remove_duplicate=False))  # parts may share weights
    names, targets = zip(*teacher.named_parameters())
    return list(targets), [source[name] for name in names]


@torch.no_grad()
def ema_update(teacher: list[Tensor], student: list[Tensor], momentum: float | Tensor) -> None:
    """``teacher <- momentum * teacher + (1 - momentum) * student`` for parameters, in fused multi-tensor calls.

    Buffers are left alone: the teacher's BatchNorm statistics are those of its own forward passes, which is part
    of the method. A momentum on the device (a tensor ``()``) takes memory for a second copy of the teacher.
    """
    if isinstance(momentum, Tensor):
        change = torch._foreach_sub(student, teacher)
        torch._foreach_mul_(change, (1.0 - momentum).to(change[0].dtype))
        torch._foreach_add_(teacher, change)
    else:
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
