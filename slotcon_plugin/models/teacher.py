"""The teacher: an exponential moving average of the student's parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def make_teacher(student: nn.ModuleDict, parts: Iterable[str]) -> nn.ModuleDict:
    """A copy of the named parts of the student that takes no gradient."""
    teacher = nn.ModuleDict({name: copy.deepcopy(student[name]) for name in parts})
    return teacher.requires_grad_(False)


def cosine_momentum(base: float, step: int | Tensor, total: int) -> float:
    """``1 - (1 - base) * (cos(pi * step / total) + 1) / 2``: from ``base`` to 1 (BYOL, used by SlotCon).

    ``total = 0`` keeps ``base``.
    """
    if total <= 0:
        return base
    progress = min(float(step) / total, 1.0)
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher <- momentum * teacher + (1 - momentum) * student`` for parameters, in fused multi-tensor calls.

    Buffers are left alone: the teacher's BatchNorm statistics are those of its own forward passes, which is part
    of the method. ``student`` may hold more modules than ``teacher``; names decide what belongs together.
    """
    source = dict(student.named_parameters())
    names, targets = zip(*teacher.named_parameters())
    torch._foreach_lerp_(list(targets), [source[name] for name in names], 1.0 - momentum)
