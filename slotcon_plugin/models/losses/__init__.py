"""Losses: pure functions of tensors, one a file, that know nothing of models or configs."""

from slotcon_plugin.models.losses.grouping import grouping_loss
from slotcon_plugin.models.losses.info_nce import Similarities, contrast_figures, cosine_similarities, info_nce_loss
from slotcon_plugin.models.losses.slot_contrast import slot_contrast_loss

__all__ = [
    "Similarities",
    "contrast_figures",
    "cosine_similarities",
    "grouping_loss",
    "info_nce_loss",
    "slot_contrast_loss",
]
