"""Which prototype owns which pixel, and pictures of it."""

from __future__ import annotations

import numpy as np

from slotcon_plugin.visualization.colors import prototype_colors

_COLOR_SHARE = 0.55
_DIMMED = 0.45


def boundaries(owners: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Pixels on either side of a change of owner, ``(H, W)`` -> ``(H, W)`` bool.

    Args:
        owners: prototype of each pixel.
        thickness: how many pixels of each side belong to the line.
    """
    edge = np.zeros(owners.shape, dtype=bool)
    for axis in (0, 1):
        for step in range(1, thickness + 1):
            a, b = np.moveaxis(owners, axis, 0)[:-step], np.moveaxis(owners, axis, 0)[step:]
            differs = a != b
            np.moveaxis(edge, axis, 0)[:-step] |= differs
            np.moveaxis(edge, axis, 0)[step:] |= differs
    return edge


def overlay(photo: np.ndarray, owners: np.ndarray, num_prototypes: int) -> np.ndarray:
    """The photo in grey, each segment tinted with its prototype's colour, white lines between segments.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        owners: ``(H, W)``, prototype of each pixel.
        num_prototypes: K.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    _require_same_size(photo, owners)
    tint = prototype_colors(num_prototypes)[owners].astype(np.float32)
    mixed = _COLOR_SHARE * tint + (1 - _COLOR_SHARE) * _grey(photo)
    mixed[boundaries(owners)] = 255
    return mixed.round().astype(np.uint8)


def spotlight(photo: np.ndarray, mask: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The photo where the mask is, dark and grey elsewhere, with a line of two pixels in ``color`` just outside it.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        mask: ``(H, W)`` bool.
        color: ``(3,)`` uint8 RGB of the line.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    _require_same_size(photo, mask)
    shown = np.where(mask[..., None], photo, (_DIMMED * _grey(photo)).round().astype(np.uint8))
    shown[boundaries(mask, thickness=2) & ~mask] = color
    return shown


def _grey(photo: np.ndarray) -> np.ndarray:
    return photo.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)


def _require_same_size(photo: np.ndarray, layer: np.ndarray) -> None:
    if photo.shape[:2] != layer.shape:
        raise ValueError(
            f"photo and segments must have one size, got {photo.shape[:2]} and {layer.shape} (height, width)"
        )
