"""Losses: pure functions of tensors, one a file, that know nothing of models or configs."""

from slotcon_plugin.models.losses.grouping import grouping_loss, mean_entropy_loss
from slotcon_plugin.models.losses.info_nce import contrast_figures, info_nce_loss, nearest_keys
from slotcon_plugin.models.losses.slot_contrast import slot_contrast_loss

__all__ = [
    "contrast_figures",
    "grouping_loss",
    "info_nce_loss",
    "mean_entropy_loss",
    "nearest_keys",
    "slot_contrast_loss",
]
