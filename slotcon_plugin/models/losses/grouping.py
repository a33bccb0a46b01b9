"""Grouping consistency (SlotCon, eq. 2), and what keeps prototypes in use."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def grouping_loss(student_logits: Tensor, target: Tensor, student_temperature: float = 0.1) -> Tensor:
    """Cross-entropy between the two branches' assignments of the same positions.

    ``- mean_bhw sum_k target_k * log softmax_k(student / tau_s)``

    Args:
        student_logits: ``(B, K, H, W)`` of one view, aligned to the overlap.
        target: ``(B, K, H, W)``, what the teacher assigns in the other view, aligned to the overlap; sums to 1 over K.
            It gets no gradient.
        student_temperature: tau_s > 0.

    Raises:
        ValueError: the shapes differ.
    """
    if student_logits.shape != target.shape:
        raise ValueError(
            f"grouping_loss: both branches must give one shape, got {tuple(student_logits.shape)} "
            f"and {tuple(target.shape)}"
        )
    log_prediction = F.log_softmax(student_logits.float() / student_temperature, dim=1)
    return -(target.detach() * log_prediction).sum(dim=1).mean()


def mean_entropy_loss(mean_assignment: Tensor) -> Tensor:
    """``log K - H(p)`` of the mean assignment ``(K,)``: 0 where all prototypes get the same share, log K where one has
    everything (me-max; Assran et al., MSN, 2204.07141)."""
    entropy = -(mean_assignment * mean_assignment.clamp(min=1e-12).log()).sum()
    return math.log(len(mean_assignment)) - entropy
