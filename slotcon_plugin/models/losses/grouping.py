"""Grouping consistency (SlotCon, eq. 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def grouping_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.07,
) -> Tensor:
    """Cross-entropy between the two branches' assignments of the same positions.

    ``- mean_bhw sum_k softmax_k(teacher / tau_t) * log softmax_k(student / tau_s)``

    Args:
        student_logits: ``(B, K, H, W)`` of one view, aligned to the overlap.
        teacher_logits: ``(B, K, H, W)`` of the other view, aligned to the overlap, the center already subtracted.
            It gets no gradient.
        student_temperature: tau_s > 0.
        teacher_temperature: tau_t > 0.

    Raises:
        ValueError: the shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"grouping_loss: both branches must give one shape, got {tuple(student_logits.shape)} "
            f"and {tuple(teacher_logits.shape)}"
        )
    target = (teacher_logits.detach().float() / teacher_temperature).softmax(dim=1)
    log_prediction = F.log_softmax(student_logits.float() / student_temperature, dim=1)
    return -(target * log_prediction).sum(dim=1).mean()
