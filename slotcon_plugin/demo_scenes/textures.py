"""Tileable texture fields of the demo scenes, each a family that colour alone does not tell apart.

A field is a float32 array (256, 256) in [0, 1] that wraps on both axes. It holds structure only: a scene draws the two
colours it runs between, so that grass may be yellow and gravel green, and what stays the same is the texture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

FIELD_SIZE = 256
NUM_VARIANTS = 6


def _unit_range(field: np.ndarray) -> np.ndarray:
    """Stretch a field so that its 1st and 99th percentiles become 0 and 1."""
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)


def noise(rng: np.random.Generator, scale_x: float, scale_y: float) -> np.ndarray:
    """Smooth tileable noise; its grain is about `scale_x` by `scale_y` pixels (white noise filtered by a Gaussian)."""
    spectrum = np.fft.rfft2(rng.standard_normal((FIELD_SIZE, FIELD_SIZE)))
    fy = np.fft.fftfreq(FIELD_SIZE)[:, None] * scale_y
    fx = np.fft.rfftfreq(FIELD_SIZE)[None, :] * scale_x
    return _unit_range(np.fft.irfft2(spectrum * np.exp(-4 * (fx**2 + fy**2)), s=(FIELD_SIZE, FIELD_SIZE)))


def _cells(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A jittered, tileable cell pattern: distance to the nearest seed in pixels, and the index of that seed."""
    grid = int(np.sqrt(count))
    step = FIELD_SIZE / grid
    corner = np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), -1).reshape(-1, 2)
    points = ((corner + rng.uniform(0.1, 0.9, corner.shape)) * step).astype(int) % FIELD_SIZE
    canvas = np.ones((FIELD_SIZE, FIELD_SIZE), np.uint8)
    canvas[points[:, 1], points[:, 0]] = 0
    # the distance transform does not wrap: take the middle of a 3x3 tiling, whose nine copies of a seed are one cell
    tiled = np.tile(canvas, (3, 3))
    distance, label = cv2.distanceTransformWithLabels(tiled, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, cols = np.nonzero(tiled == 0)
    cell = np.zeros(label.max() + 1, np.int64)
    cell[label[rows, cols]] = np.unique(rows % FIELD_SIZE * FIELD_SIZE + cols % FIELD_SIZE, return_inverse=True)[1]
    middle = slice(FIELD_SIZE, 2 * FIELD_SIZE)
    return distance[middle, middle], cell[label[middle, middle]]


def _grass(rng: np.random.Generator) -> np.ndarray:
    blades = noise(rng, 1.5, 14) * 0.6 + noise(rng, 3, 20) * 0.4
    return _unit_range(blades + 0.35 * noise(rng, 30, 30))


def _gravel(rng: np.random.Generator) -> np.ndarray:
    distance, label = _cells(rng, int(rng.integers(500, 900)))
    tone = rng.uniform(0.35, 1.0, label.max() + 1)[label]
    return _unit_range(tone * np.clip(1.25 - distance / 9, 0, 1))


def _water(rng: np.random.Generator) -> np.ndarray:
    ridges = sum(1 - np.abs(2 * noise(rng, 40 / k, 14 / k) - 1) for k in (1, 1.7))
    return _unit_range(ridges**3)


def _tiles(rng: np.random.Generator) -> np.ndarray:
    rows = int(rng.choice([4, 8]))
    cols = int(rng.choice([4, 8]))
    y, x = np.mgrid[0:FIELD_SIZE, 0:FIELD_SIZE].astype(np.float64)
    v = y * rows / FIELD_SIZE
    u = x * cols / FIELD_SIZE + (np.floor(v) % 2) * rng.choice([0, 0.5])
    tone = rng.uniform(0.55, 1.0, (rows, cols))[np.floor(v).astype(int), np.floor(u).astype(int) % cols]
    edge = np.minimum(np.minimum(u % 1, 1 - u % 1) / cols, np.minimum(v % 1, 1 - v % 1) / rows) * FIELD_SIZE
    tone = tone + 0.15 * (noise(rng, 6, 6) - 0.5)
    return np.clip(np.where(edge < 2.0, 0.05, tone), 0, 1).astype(np.float32)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    distance, label = _cells(rng, 600)
    tone = rng.uniform(0, 1, label.max() + 1)[label]
    return _unit_range(0.6 * tone + 0.5 * noise(rng, 24, 24) - distance / 14)


def _wool(rng: np.random.Generator) -> np.ndarray:
    distance, _ = _cells(rng, 260)
    return _unit_range(0.5 + 0.5 * np.sin(distance * 1.1) + 0.4 * noise(rng, 3, 3))


def _planks(rng: np.random.Generator) -> np.ndarray:
    y = np.arange(FIELD_SIZE)[:, None]
    width = FIELD_SIZE // int(rng.choice([4, 8]))
    tone = rng.uniform(0.5, 1.0, FIELD_SIZE)[y // width]
    grain = 0.5 + 0.5 * np.sin(y * 0.9 + 9 * noise(rng, 90, 14))
    return np.where(y % width < 3, 0.0, np.clip(tone - 0.35 * grain, 0, 1)).astype(np.float32)


def _spots(rng: np.random.Generator) -> np.ndarray:
    distance, label = _cells(rng, 36)
    radius = rng.uniform(7, 15, label.max() + 1)[label]
    return np.clip((radius - distance) / 2 + 0.5, 0, 1).astype(np.float32)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    field = noise(rng, 120, 60) + 0.5 * noise(rng, 50, 24) + 0.25 * noise(rng, 20, 10)
    return _unit_range(np.clip(_unit_range(field) - 0.45, 0, None))


def _speckle(rng: np.random.Generator) -> np.ndarray:
    return _unit_range(noise(rng, 60, 60) + 0.3 * noise(rng, 4, 4))


_FIELDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "grass": _grass, "gravel": _gravel, "water": _water, "tiles": _tiles,
    "leaves": _leaves, "wool": _wool, "planks": _planks, "spots": _spots,
    "clouds": _clouds, "speckle": _speckle,
}  # fmt: skip


@cache
def field(name: str, variant: int) -> np.ndarray:
    """Field (256, 256) of texture family `name`; the same (name, variant) is the same array in every process."""
    key = sorted(_FIELDS).index(name)
    out = _FIELDS[name](np.random.default_rng([key, variant]))
    out.setflags(write=False)  # shared by all scenes
    return out


def sample(name: str, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Look a randomly chosen variant of a family up at texture coordinates (u, v) in pixels of the field, wrapping.

    Returns:
        float32, the shape of `u`, in [0, 1].
    """
    texture = field(name, int(rng.integers(NUM_VARIANTS)))
    shift_u, shift_v = rng.uniform(0, FIELD_SIZE, 2).astype(np.float32)
    map_u, map_v = (np.asarray(u + shift_u, np.float32), np.asarray(v + shift_v, np.float32))
    return cv2.remap(texture, map_u, map_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
