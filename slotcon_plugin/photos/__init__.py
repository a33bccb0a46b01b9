"""Photo files: which files of a folder they are, and their upright RGB pixels."""

from slotcon_plugin.photos.listing import PHOTO_SUFFIXES, collect_photos, evenly_spaced, list_photos, printable
from slotcon_plugin.photos.photo import Orientation, Photo, PhotoError
from slotcon_plugin.photos.reading import network_sides, read_photo, read_photos, require_whole, upright_size

__all__ = [
    "PHOTO_SUFFIXES",
    "Orientation",
    "Photo",
    "PhotoError",
    "collect_photos",
    "evenly_spaced",
    "list_photos",
    "network_sides",
    "printable",
    "read_photo",
    "read_photos",
    "require_whole",
    "upright_size",
]
