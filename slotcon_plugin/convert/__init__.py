"""Checkpoints of any known kind -> backbones for other frameworks, proved before they are written."""

from slotcon_plugin.convert.canonical import CanonicalBackbone, build_canonical
from slotcon_plugin.convert.convert import convert
from slotcon_plugin.convert.metadata import check_compatible, read_metadata
from slotcon_plugin.convert.read import read_checkpoint
from slotcon_plugin.errors import ConversionError

__all__ = [
    "CanonicalBackbone",
    "ConversionError",
    "build_canonical",
    "check_compatible",
    "convert",
    "read_checkpoint",
    "read_metadata",
]
