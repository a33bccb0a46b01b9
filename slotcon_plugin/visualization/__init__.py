"""Pictures: groupings of photos, what prototypes have learned, curves of runs."""

from slotcon_plugin.visualization.hook import GroupingPicturesHook

__all__ = ["GroupingPicturesHook"]
