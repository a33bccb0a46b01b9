"""Exact polygons of masks: outlines along pixel edges, which COCO's rasteriser turns back into the same pixels."""

from __future__ import annotations

import cv2
import numpy as np


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons whose union is exactly the mask.

    OpenCV's contours run through the centres of pixels. In a mask enlarged three times these lie one third of a pixel
    within the edges, so that rounding gives the edges. A polygon cannot have a hole: a part with one is cut in two
    through it.

    Args:
        mask: (H, W) bool or 0/1.

    Returns:
        Arrays (N, 2) of xy corners in continuous pixel coordinates (whole numbers).
    """
    polygons: list[np.ndarray] = []
    parts = [mask.astype(np.uint8)]
    while parts:
        part = parts.pop()
        large = np.kron(part, np.ones((3, 3), np.uint8))
        contours, links = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        # corners of pixel i lie at 3 i and 3 i + 2 of the enlarged mask, its edges at i and i + 1
        corners = [(contour[:, 0] + 2) // 3 for contour in contours]
        holes = [outline for outline, link in zip(corners, links[0] if contours else []) if link[3] >= 0]
        if not holes:
            polygons += corners
            continue
        column = int(holes[0][:, 0].min() + holes[0][:, 0].max()) // 2
        for half in (np.s_[:, :column], np.s_[:, column:]):
            parts.append(np.zeros_like(part))
            parts[-1][half] = part[half]
    return polygons
