"""Self-supervised pretraining of dense representations on scene-centric photos, for the mmengine toolchain."""

from slotcon_plugin import registry

__version__ = "0.1.0"

__all__ = ["__version__", "registry"]
