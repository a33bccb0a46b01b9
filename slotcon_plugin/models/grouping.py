"""Semantic grouping: which prototype owns which position, and the slots pooled from it (SlotCon, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import MODELS

# Keeps a prototype that attends nowhere from dividing by zero; the value of the official code.
_ATTENTION_FLOOR = 1e-6
# Prototypes upsampled at a time: all 2,048 of them at the size of a photo would take gigabytes.
_CHUNK = 64


class Grouping(NamedTuple):
    """What :class:`SemanticGrouping` makes of a projected map.

    Attributes:
        z: the projected map, un-normalised, ``(B, D, H, W)``.
        assignment_logits: cosine similarity to each prototype, in [-1, 1], ``(B, K, H, W)``.
        slots: one vector a prototype and image, ``(B, K, D)``.
        present: the prototype is the largest at one position at least, ``(B, K)`` bool.
    """

    z: Tensor
    assignment_logits: Tensor
    slots: Tensor
    present: Tensor


def present_prototypes(assignment_logits: Tensor) -> Tensor:
    """``(B, K, H, W)`` -> ``(B, K)`` bool: is there a position whose largest logit is that of prototype k?"""
    owner = assignment_logits.detach().argmax(dim=1).flatten(1)  # (B, H*W)
    present = torch.zeros(assignment_logits.shape[:2], dtype=torch.bool, device=owner.device)
    return present.scatter_(1, owner, True)


@MODELS.register_module()
class SemanticGrouping(nn.Module):
    """K prototypes shared by all images; attentive pooling of a map into one slot a prototype.

    Args:
        num_prototypes: K.
        channels: D.
        temperature: of the softmax that pools (tau_t of the paper, in both branches).
    """

    def __init__(self, num_prototypes: int = 256, channels: int = 256, temperature: float = 0.07) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"SemanticGrouping: temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.prototypes = nn.Parameter(torch.randn(num_prototypes, channels))

    def forward(self, z: Tensor) -> Grouping:
        """Group a projected map ``(B, D, H, W)``; computed in float32 whatever the autocast."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            logits = torch.einsum("kd,bdhw->bkhw", F.normalize(self.prototypes.float(), dim=1), F.normalize(z, dim=1))
            attention = (logits / self.temperature).softmax(dim=1) + _ATTENTION_FLOOR
            attention = attention / attention.sum(dim=(2, 3), keepdim=True)
            slots = torch.einsum("bkhw,bdhw->bkd", attention, z)
        return Grouping(z, logits, slots, present_prototypes(logits))


def pixel_owners(assignment_logits: Tensor, height: int, width: int) -> Tensor:
    """The prototype with the largest logit at each pixel, ``(K, h, w)`` -> ``(height, width)`` int64.

    Logits are upsampled bilinearly before they are compared, so that boundaries are smooth. Where two are equal, the
    lower index owns.
    """
    best = owner = None
    for start in range(0, len(assignment_logits), _CHUNK):
        chunk = assignment_logits[start : start + _CHUNK].float()
        value, index = F.interpolate(chunk[None], (height, width), mode="bilinear", align_corners=False)[0].max(dim=0)
        if best is None:
            best, owner = value, index
        else:
            owner = torch.where(value > best, index + start, owner)
            best = torch.maximum(value, best)
    return owner
