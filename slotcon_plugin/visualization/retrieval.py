"""Nearest pixels: chosen points of one photo and their best matches in another, drawn."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from slotcon_plugin.models.pixel_pairs import pixel_centres, sample_points
from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.sheet import GAP, INK, PAPER, beside, fit_height, fitted_size, font

# Spread over the photo, away from its border; where nobody chooses.
DEFAULT_POINTS = tuple((x, y) for y in (0.25, 0.5, 0.75) for x in (0.2, 0.5, 0.8))
_RING, _HEIGHT = 7, 420


def nearest_pixels(first: Tensor, second: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Best matches of points by cosine similarity.

    Args:
        first: map of the photo the points are in, ``(D, h, w)``; read bilinearly.
        second: map of the photo that is searched, ``(D, h', w')``.
        points: ``(P, 2)`` xy in [0, 1].

    Returns:
        Centres of the best pixels, ``(P, 2)`` xy in [0, 1], and their similarities in [-1, 1], ``(P,)``.
    """
    queries = F.normalize(sample_points(first[None], points[None])[0], dim=1)
    similarity, index = (queries @ F.normalize(second.float().flatten(1), dim=0)).max(dim=1)
    return pixel_centres(*second.shape[1:], second.device)[index], similarity


def draw_matches(
    photos: tuple[np.ndarray, np.ndarray], points: Tensor, matches: Tensor, similarity: Tensor
) -> Image.Image:
    """Two photos ``(H, W, 3)`` uint8 side by side; each point and its match in one colour and joined by a line."""
    pictures = [fit_height(Image.fromarray(photo), _HEIGHT) for photo in photos]
    offset = pictures[0].width + GAP
    sheet = beside(pictures)

    draw = ImageDraw.Draw(sheet)
    colors = [tuple(color) for color in prototype_colors(len(points)).tolist()]
    (width, height), (other_width, other_height) = (fitted_size(*photo.shape[1::-1], _HEIGHT) for photo in photos)
    starts = [(x * width, y * height) for x, y in points.tolist()]
    ends = [(offset + x * other_width, y * other_height) for x, y in matches.tolist()]
    for start, end, color in zip(starts, ends, colors):
        draw.line((start, end), fill=color, width=2)
    for (x, y), color in zip(starts + ends, colors * 2):
        draw.ellipse((x - _RING, y - _RING, x + _RING, y + _RING), fill=color, outline=PAPER, width=2)
    for (x, y), value in zip(ends, similarity.tolist()):
        side, anchor = (1, "lm") if x < sheet.width - 50 else (-1, "rm")
        at = x + side * (_RING + 2), y
        draw.text(at, f"{value:.2f}", PAPER, font(12), anchor, stroke_width=2, stroke_fill=INK)
    return sheet
