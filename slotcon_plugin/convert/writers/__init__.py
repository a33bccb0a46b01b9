"""Target formats, a file each; :data:`TARGETS` is the table that the tools and the tests read."""

from slotcon_plugin.convert.writers.base import Target
from slotcon_plugin.convert.writers.detectron2 import DETECTRON2_TARGET
from slotcon_plugin.convert.writers.openmmlab import MMDET_TARGET, MMSEG_TARGET
from slotcon_plugin.convert.writers.timm import TIMM_TARGET
from slotcon_plugin.convert.writers.torchvision import TORCHVISION_TARGET

TARGETS: dict[str, Target] = {
    target.name: target for target in (DETECTRON2_TARGET, MMDET_TARGET, MMSEG_TARGET, TIMM_TARGET, TORCHVISION_TARGET)
}

__all__ = ["TARGETS", "Target"]
