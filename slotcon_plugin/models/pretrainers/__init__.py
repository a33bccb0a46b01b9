"""Self-supervised algorithms: wiring only; what they compute lives in the neighbouring files."""

from slotcon_plugin.models.pretrainers.base import BasePretrainer, Method
from slotcon_plugin.models.pretrainers.densecl import DenseCL
from slotcon_plugin.models.pretrainers.slotcon import SlotCon
from slotcon_plugin.models.pretrainers.slotcon_decoder import SlotConDecoder
from slotcon_plugin.models.pretrainers.vader import VADeR

__all__ = ["BasePretrainer", "DenseCL", "Method", "SlotCon", "SlotConDecoder", "VADeR"]
