"""Exact polygons of masks: outlines along pixel edges, which COCO's rasteriser turns back into the same pixels."""

from __future__ import annotations

import cv2
import numpy as np


def _edge_loops(mask: np.ndarray) -> list[np.ndarray]:
    """Closed outlines (N, 2) along pixel edges of a 4-connected mask, mask on the right hand; holes come separately."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # side whose neighbour is outside -> (start, step) of the edge, clockwise in image coordinates
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # above
        (padded[1:-1, 2:], (1, 0), (0, 1)),  # right
        (padded[2:, 1:-1], (1, 1), (-1, 0)),  # below
        (padded[1:-1, :-2], (0, 1), (0, -1)),  # left
    )
    for neighbour, start, step in sides:
        rows, cols = np.nonzero(inside & ~neighbour)
        for x, y in zip((cols + start[0]).tolist(), (rows + start[1]).tolist()):
            following.setdefault((x, y), []).append(step)
    loops = []
    while following:
        first = point = next(iter(following))
        corners, step = [], None
        while True:
            steps = following[point]
            # where two loops touch at a corner, turn right: stay with the same 4-connected pixels
            turn = 0 if step is None or len(steps) == 1 else steps.index((-step[1], step[0]))
            new = steps.pop(turn)
            if not steps:
                del following[point]
            if new != step:
                corners.append(point)
            step = new
            point = (point[0] + step[0], point[1] + step[1])
            if point == first:
                break
        loops.append(np.array(corners))
    return loops


def _signed_area(loop: np.ndarray) -> float:
    x, y = loop[:, 0], loop[:, 1]
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Simple polygons whose union is exactly the mask.

    A polygon cannot have a hole, so a part with a hole is cut in two through the hole.

    Args:
        mask: (H, W) bool or 0/1.

    Returns:
        Arrays (N, 2) of xy corners in continuous pixel coordinates (whole numbers), clockwise on the screen.
    """
    polygons: list[np.ndarray] = []
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    parts = [labels == k for k in range(1, count)]
    while parts:
        part = parts.pop()
        loops = _edge_loops(part)
        hole = next((loop for loop in loops if _signed_area(loop) < 0), None)
        if hole is None:
            polygons += loops
            continue
        column = int(hole[:, 0].min() + hole[:, 0].max()) // 2
        for half in (np.s_[:, :column], np.s_[:, column:]):
            piece = np.zeros(part.shape, np.uint8)
            piece[half] = part[half]
            count, labels = cv2.connectedComponents(piece, connectivity=4)
            parts += [labels == k for k in range(1, count)]
    return polygons
