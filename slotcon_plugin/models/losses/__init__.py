"""Losses: pure functions of tensors, one a file, that know nothing of models or configs."""

from slotcon_plugin.models.losses.grouping import grouping_loss
from slotcon_plugin.models.losses.pixel_contrast import PixelSimilarities, pixel_contrast_loss, pixel_similarities
from slotcon_plugin.models.losses.slot_contrast import slot_contrast_loss

__all__ = ["PixelSimilarities", "grouping_loss", "pixel_contrast_loss", "pixel_similarities", "slot_contrast_loss"]
