"""Compose one demo scene: sky, one or two grounds in perspective, objects from far to near, light and camera.

Frame: image pixels, x right, y down, pixel i centred at i + 0.5. Everything is drawn from (seed, index) alone.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from slotcon_plugin.demo_scenes.objects import CATEGORIES, Patch, draw, hsv
from slotcon_plugin.demo_scenes.textures import sample
from slotcon_plugin.errors import UserError

GROUNDS = ("grass", "gravel", "water", "tiles")
OBJECTS = tuple(CATEGORIES)
CLASSES = ("sky", *GROUNDS, *OBJECTS)
MIN_SIDE = 32


class Scene(NamedTuple):
    """A picture and its ground truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        semantic: (H, W) uint8, index into `CLASSES`; every pixel has a class.
        instances: (H, W) uint16; 0 = sky or ground, k = the k-th visible object, counted from far to near.
        categories: class index of object 1, 2, ...
    """

    image: np.ndarray
    semantic: np.ndarray
    instances: np.ndarray
    categories: tuple[int, ...]


def _ground_colours(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Dark and bright end of a ground; the ranges of the kinds overlap, so colour alone does not name them."""
    hue, saturation = {
        "grass": (rng.uniform(0.12, 0.36), rng.uniform(0.25, 0.7)),
        "gravel": (rng.uniform(0.02, 0.2), rng.uniform(0.05, 0.45)),
        "water": (rng.uniform(0.35, 0.68), rng.uniform(0.2, 0.65)),
        "tiles": (rng.uniform(), rng.uniform(0.05, 0.5)),
    }[kind]
    value = rng.uniform(0.5, 0.95)
    dark = hsv(hue + rng.uniform(-0.05, 0.05), saturation, value * rng.uniform(0.35, 0.6))
    return dark, hsv(hue, saturation * 0.8, value)


def _pixel_centres(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """y (H, 1) and x (1, W) of the pixel centres, float32."""
    y, x = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    return y[:, None] + np.float32(0.5), x[None, :] + np.float32(0.5)


def _ground(rng: np.random.Generator, kind: str, width: int, height: int, horizon: float) -> np.ndarray:
    """RGB (H, W, 3) of one ground seen in perspective; above the horizon its values mean nothing."""
    y, x = _pixel_centres(width, height)
    depth = height / np.maximum(y - horizon, height / 40)  # (H, 1), in camera heights, times the focal length
    across = (x / width - 0.5) * depth * 1.4  # (H, W)
    turn = rng.uniform(-0.5, 0.5) if kind in ("tiles", "gravel") else 0.0
    cos, sin, zoom = np.cos(turn), np.sin(turn), rng.uniform(110, 190)
    u, v = zoom * (cos * across - sin * depth), zoom * (sin * across + cos * depth)
    u, v = np.broadcast_arrays(u.astype(np.float32), v.astype(np.float32))
    far = np.clip(depth / 9, 0, 1)  # texture finer than a pixel would flicker: fade it to its mean
    amount = sample(kind, rng, u, v) * (1 - far) + 0.45 * far
    patches = 0.75 + 0.5 * sample("speckle", rng, u / 9, v / 9)
    low, high = _ground_colours(rng, kind)
    return (low + (high - low) * amount[..., None]) * patches[..., None]


def _sky(rng: np.random.Generator, width: int, height: int, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H, W, 3) of the sky, and the colour (3,) of the haze at its lower edge."""
    hue = rng.uniform(0.52, 0.64) if rng.uniform() < 0.7 else rng.uniform(0.0, 0.12)
    zenith = hsv(hue, rng.uniform(0.2, 0.7), rng.uniform(0.55, 0.95))
    haze = hsv(hue + rng.uniform(-0.06, 0.06), rng.uniform(0.02, 0.2), rng.uniform(0.85, 1.0))
    y, x = _pixel_centres(width, height)
    sky = zenith + (haze - zenith) * np.clip(y / max(horizon, 1), 0, 1)[..., None]  # (H, 1, 3)
    u, v = np.broadcast_arrays(x * (200 / width), y * (260 / width))
    clouds = sample("clouds", rng, u, v) * np.float32(rng.uniform(0, 1))
    return sky + (hsv(hue, 0.03, 0.98) - sky) * clouds[..., None], haze


def _background(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Sky and grounds without objects: RGB (H, W, 3), semantic (H, W), y of the horizon."""
    horizon = height * (rng.uniform(0.12, 0.42) if rng.uniform() < 0.8 else rng.uniform(-0.25, -0.05))
    kinds = rng.permutation(GROUNDS)
    y, x = _pixel_centres(width, height)
    image = _ground(rng, kinds[0], width, height, horizon)
    semantic = np.full((height, width), CLASSES.index(kinds[0]), np.uint8)
    if rng.uniform() < 0.6:  # a second ground behind a winding border
        angle = rng.uniform(0, 2 * np.pi)
        wave = 0.06 * np.sin(x / width * rng.uniform(3, 12) + rng.uniform(0, 6)) * height
        middle_y = (max(horizon, 0) + height) / 2 + rng.uniform(-0.15, 0.15) * height
        side = np.cos(angle) * (x - width * rng.uniform(0.3, 0.7)) + np.sin(angle) * 2 * (y - middle_y) + wave
        blend = np.clip(side + 0.5, 0, 1)[..., None]
        image = image + (_ground(rng, kinds[1], width, height, horizon) - image) * blend
        semantic[side > 0] = CLASSES.index(kinds[1])
    sky, haze = _sky(rng, width, height, horizon)
    fog = np.exp(-np.clip(y - horizon, 0, None) / (0.09 * height))[..., None] * rng.uniform(0.2, 0.8)
    image += (haze - image) * fog.astype(np.float32)
    above = np.clip(horizon - y + 0.5, 0, 1)[..., None]
    semantic[y[:, 0] < horizon] = CLASSES.index("sky")
    return image + (sky - image) * above.astype(np.float32), semantic, horizon


def paste(image: np.ndarray, instances: np.ndarray, patch: Patch, x: int, y: int, number: int) -> None:
    """Put a patch over the picture with its anchor at (x, y), and its number into the instance map, in place.

    A pixel belongs to the object that covers at least half of it; what is pasted later occludes.
    """
    height, width = instances.shape
    left, top = x - patch.anchor[0], y - patch.anchor[1]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + patch.alpha.shape[1], width), min(top + patch.alpha.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = patch.alpha[part]
    image[y0:y1, x0:x1] += alpha[..., None] * (patch.colour[part] - image[y0:y1, x0:x1])
    instances[y0:y1, x0:x1][alpha >= 0.5] = number


def _shadow(
    image: np.ndarray, semantic: np.ndarray, x: int, y: int, width: float, height: float, light: np.ndarray
) -> None:
    """Darken the ground where the object keeps the light away: an ellipse that leans away from the light."""
    mask = np.zeros(semantic.shape, np.uint8)
    centre = (round(x - light[0] * 0.35 * height), round(y - 0.01 * height))
    axes = (max(round(0.5 * width + 0.3 * height * abs(light[0])), 1), max(round(0.13 * width), 1))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    soft = cv2.blur(mask, (5, 5)).astype(np.float32) / 255 * (semantic > 0)
    image *= 1 - np.float32(0.45) * soft[..., None]


def _camera(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """White balance, exposure, vignette, sensor noise: RGB in [0, 1] to uint8."""
    height, width = image.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = (1 - rng.uniform(0, 0.18) * (x**2 + y**2)).astype(np.float32)[..., None]
    image = image * (rng.uniform(0.93, 1.07, 3) * rng.uniform(0.8, 1.1)).astype(np.float32) * vignette
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.85, 1.15))
    image += np.float32(rng.uniform(0.004, 0.018)) * rng.standard_normal(image.shape, np.float32)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def render_scene(seed: int, index: int, size: tuple[int, int] = (320, 240)) -> Scene:
    """Draw scene `index` of the endless list of scenes that belongs to `seed`.

    Args:
        seed, index: non-negative; the same pair gives the same scene in every process.
        size: (width, height) in pixels, each at least 32.

    Raises:
        UserError: `size` is too small, or `seed` or `index` negative.
    """
    width, height = size
    if min(size) < MIN_SIDE:
        raise UserError(f"size (width, height): expected sides of at least {MIN_SIDE} pixels, got {tuple(size)}")
    if seed < 0 or index < 0:
        raise UserError(f"seed and index: expected non-negative integers, got seed={seed}, index={index}")
    rng = np.random.default_rng([seed, index])
    image, semantic, horizon = _background(rng, width, height)
    image = image.astype(np.float32)
    light = np.array([rng.uniform(-0.75, 0.75), rng.uniform(-0.8, -0.3), rng.uniform(0.45, 0.9)])
    light /= np.linalg.norm(light)

    instances = np.zeros(semantic.shape, np.uint16)
    ground_top = max(horizon, 0.0)
    bases = np.sort(ground_top + (height - ground_top) * rng.uniform(0.12, 1.0, int(rng.integers(3, 9))))
    names = rng.choice(OBJECTS, len(bases))
    for number, (base, name) in enumerate(zip(bases, names), start=1):
        tall = CATEGORIES[name].size * (0.75 * (base - horizon) + 0.03 * height) * rng.uniform(0.75, 1.3)
        patch = draw(name, rng, float(np.clip(tall, 0.07 * height, 0.8 * height)), light)
        x, y = int(rng.uniform(0.02, 0.98) * width), int(base)
        _shadow(image, semantic, x, y, patch.alpha.shape[1], patch.alpha.shape[0], light)
        paste(image, instances, patch, x, y, number)

    visible = np.unique(instances[instances > 0])  # what is wholly hidden does not exist
    renumber = np.zeros(len(bases) + 1, np.uint16)
    renumber[visible] = np.arange(1, len(visible) + 1)
    instances = renumber[instances]
    categories = tuple(CLASSES.index(names[number - 1]) for number in visible)
    semantic = np.array([0, *categories], np.uint8)[instances] + semantic * (instances == 0)
    return Scene(_camera(rng, image), semantic.astype(np.uint8), instances, categories)
