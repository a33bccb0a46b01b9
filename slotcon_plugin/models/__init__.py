"""Backbone adapters, heads, grouping, losses and the pretrainers that wire them."""

from slotcon_plugin.models.backbones import TorchvisionResNet
from slotcon_plugin.models.center import Center
from slotcon_plugin.models.decoders import FCNDecoder, FPNDecoder, PyramidDecoder
from slotcon_plugin.models.grouping import Grouping, SemanticGrouping
from slotcon_plugin.models.heads import MLPHead
from slotcon_plugin.models.pretrainers import BasePretrainer, DenseCL, Method, SlotCon, SlotConDecoder, VADeR
from slotcon_plugin.models.queue import KeyQueue
from slotcon_plugin.models.simple_pyramid import SimpleFeaturePyramid
from slotcon_plugin.models.sinkhorn import Sinkhorn
from slotcon_plugin.models.timm_backbone import TimmBackbone

__all__ = [
    "BasePretrainer",
    "Center",
    "DenseCL",
    "FCNDecoder",
    "FPNDecoder",
    "Grouping",
    "KeyQueue",
    "MLPHead",
    "Method",
    "PyramidDecoder",
    "SemanticGrouping",
    "SimpleFeaturePyramid",
    "Sinkhorn",
    "SlotCon",
    "SlotConDecoder",
    "TimmBackbone",
    "TorchvisionResNet",
    "VADeR",
]
