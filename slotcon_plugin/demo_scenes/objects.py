"""The six object categories of the demo scenes: each its own family of shapes and of textures, in any colour.

Local frame of an object: x to the right, y UP, base at (0, 0), height 1. Patches are RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from slotcon_plugin.demo_scenes.textures import sample

RGB = np.ndarray


class Patch(NamedTuple):
    """A drawn object: `colour` (h, w, 3) float32 RGB in [0, 1], `alpha` (h, w) float32 in [0, 1].

    `anchor` (x, y) is the pixel of the patch that stands on the ground.
    """

    colour: np.ndarray
    alpha: np.ndarray
    anchor: tuple[int, int]


def hsv(hue: float, saturation: float, value: float) -> RGB:
    """One colour, hue in turns, as RGB (3,) float32."""
    sector = (hue % 1.0) * 6
    ramp = np.clip(np.abs(sector - np.array([3.0, 2.0, 4.0])) * [1, -1, -1] + [-1, 2, 2], 0, 1)
    return (value * (1 - saturation * (1 - ramp))).astype(np.float32)


class Canvas:
    """Draws parts of one object into a patch. Coordinates are those of the module's local frame."""

    def __init__(self, height: float, half_width: float, angle: float, mirror: bool) -> None:
        """Args: `height` in pixels; `half_width` in heights; `angle` in radians about the base; `mirror` the x axis."""
        cos, sin = np.cos(angle), np.sin(angle)
        side = int(height * (half_width + abs(sin))) + 3
        above, below = (int(height * (reach + half_width * abs(sin))) + 3 for reach in (1.05, 0.02))
        self.origin = np.array([side, above], np.float32)
        self.to_pixel = height * np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirror else 1.0, -1.0])
        to_local = np.linalg.inv(self.to_pixel).astype(np.float32)
        x = np.arange(-side, side + 1, dtype=np.float32)[None, :]
        y = np.arange(-above, below + 1, dtype=np.float32)[:, None]
        self.x = to_local[0, 0] * x + to_local[0, 1] * y
        self.y = to_local[1, 0] * x + to_local[1, 1] * y
        self.colour = np.zeros((*self.x.shape, 3), np.float32)
        self.alpha = np.zeros(self.x.shape, np.float32)

    def polygon(self, points: np.ndarray) -> np.ndarray:
        """Antialiased coverage (h, w) uint8 of a closed outline, points (N, 2)."""
        pixels = np.asarray(points) @ self.to_pixel.T + self.origin
        mask = np.zeros(self.alpha.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        return mask

    def texture(self, name: str, rng: np.random.Generator, repeat: float) -> np.ndarray:
        """A texture that sticks to the object; `repeat` field widths over the object's height."""
        return sample(name, rng, self.x * 256 * repeat, self.y * 256 * repeat)[..., None]

    def paint(self, mask: np.ndarray, colour: np.ndarray, light: np.ndarray, bulge: float = 1.0) -> None:
        """Put a part over what is there, lit as if its outline were inflated.

        Args:
            mask: coverage (h, w) uint8.
            colour: RGB (3,) or (h, w, 3).
            light: unit vector (3,) to the light: image x, image y (down), towards the viewer.
            bulge: 0 is flat, 1 a cushion.
        """
        x, y, width, height = cv2.boundingRect(mask)
        box = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
        cover = mask[box].astype(np.float32) / 255
        shade = np.float32(light[2])
        if bulge > 0:
            depth = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
            top = max(float(depth.max()), 1.0)
            cushion = np.sqrt(depth * (2 * top - depth)) * np.float32(bulge)
            cushion = cv2.blur(cushion, (2 * int(0.12 * top) + 3,) * 2)
            slope_x, slope_y = (cv2.Sobel(cushion, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
            away = np.float32(light[0]) * slope_x + np.float32(light[1]) * slope_y
            shade = np.maximum(shade - away, 0) / np.sqrt(1 + slope_x**2 + slope_y**2)
        lit = (colour[box] if colour.ndim == 3 else colour) * np.asarray(0.42 + 0.75 * shade)[..., None]
        self.colour[box] += cover[..., None] * (lit - self.colour[box])
        self.alpha[box] += cover * (1 - self.alpha[box])

    def patch(self) -> Patch:
        """What has been drawn, cut to its bounding box."""
        rows = np.flatnonzero((self.alpha > 0).any(1))
        cols = np.flatnonzero((self.alpha > 0).any(0))
        box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        anchor = (int(self.origin[0]) - int(cols[0]), int(self.origin[1]) - int(rows[0]))
        return Patch(self.colour[box], self.alpha[box], anchor)


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """Points (48, 2) of an ellipse, or of the arc from `start` to `end` in turns."""
    angle = 2 * np.pi * np.linspace(start, end, 48)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], -1)


def _wobbly(rng: np.random.Generator, cx: float, cy: float, rx: float, ry: float, amount: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for lobes in (3, 5, 8, 13):
        radius += amount / lobes**0.5 * rng.uniform(-1, 1) * np.sin(lobes * angle + rng.uniform(0, 2 * np.pi))
    return np.stack([cx + rx * radius * np.cos(angle), cy + ry * radius * np.sin(angle)], -1)


def _between(low: RGB, high: RGB, amount: np.ndarray) -> np.ndarray:
    return low + (high - low) * amount


def _ball(canvas: Canvas, rng: np.random.Generator, light: np.ndarray) -> None:
    first = hsv(rng.uniform(), rng.uniform(0.3, 1), rng.uniform(0.5, 1))
    second = hsv(rng.uniform(), rng.uniform(0, 1), 0.95)
    x, y = canvas.x / 0.5, (canvas.y - 0.5) / 0.5
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))  # the ball may lie any way round
    a, b, c = (axes[i, 0] * x + axes[i, 1] * y + axes[i, 2] * z for i in range(3))
    if rng.uniform() < 0.5:
        pattern = np.sin(np.arctan2(a, b) * int(rng.integers(3, 6))) > 0  # sectors of a beach ball
    else:
        pattern = np.abs(c) < rng.uniform(0.25, 0.45)  # one band
    pattern = cv2.GaussianBlur(pattern.astype(np.float32), (0, 0), 0.6)[..., None]
    canvas.paint(canvas.polygon(ellipse(0, 0.5, 0.5, 0.5)), _between(first, second, pattern), light)


def _car(canvas: Canvas, rng: np.random.Generator, light: np.ndarray) -> None:
    body = hsv(rng.uniform(), rng.uniform(0, 0.9), rng.uniform(0.25, 0.95))
    roof_front, roof_back = rng.uniform(0.15, 0.4), rng.uniform(-0.75, -0.35)
    paint = _between(body * 0.85, body, canvas.texture("speckle", rng, 0.7))
    hull = [(-1, 0.14), (1, 0.14), (1.02, 0.42), (0.7, 0.56), (roof_front + 0.18, 0.6), (roof_front, 0.98),
            (roof_back, 1.0), (roof_back - 0.2, 0.6), (-0.98, 0.55)]  # fmt: skip
    canvas.paint(canvas.polygon(np.array(hull)), paint, light, 0.7)
    sill, top = (
        [(roof_back - 0.1, 0.62), (roof_front + 0.1, 0.62)],
        [(roof_front - 0.03, 0.9), (roof_back + 0.05, 0.92)],
    )
    glass = np.array(sill + top)
    canvas.paint(canvas.polygon(glass), hsv(0.58, 0.25, rng.uniform(0.35, 0.75)), light, 0.3)
    middle = (roof_front + roof_back) / 2
    pillar = np.array([(middle, 0.6), (middle + 0.07, 0.6), (middle + 0.07, 0.95), (middle, 0.95)])
    canvas.paint(canvas.polygon(pillar), body * 0.8, light, 0.0)
    for wheel in (-0.58, 0.58):
        canvas.paint(canvas.polygon(ellipse(wheel, 0.18, 0.21, 0.21)), hsv(0, 0, 0.12), light, 0.4)
        canvas.paint(canvas.polygon(ellipse(wheel, 0.18, 0.1, 0.1)), hsv(0.6, 0.05, 0.7), light, 0.6)


def _crate(canvas: Canvas, rng: np.random.Generator, light: np.ndarray) -> None:
    hue = rng.uniform(0.05, 0.12) if rng.uniform() < 0.6 else rng.uniform()
    wood = hsv(hue, rng.uniform(0.2, 0.7), rng.uniform(0.5, 0.9))
    planks = _between(wood * 0.3, wood, canvas.texture("planks", rng, rng.uniform(0.5, 0.8)))
    half, lid, shear = rng.uniform(0.38, 0.6), rng.uniform(0.12, 0.22), rng.uniform(-0.25, 0.25)
    top = 1 - lid
    front = np.array([(-half, 0), (half, 0), (half, top), (-half, top)])
    upper = np.array([(-half, top), (half, top), (half + shear - 0.06, 1), (-half + shear + 0.06, 1)])
    canvas.paint(canvas.polygon(upper), planks * 1.2, light, 0.0)
    canvas.paint(canvas.polygon(front), planks * 0.9, light, 0.0)
    bar = 0.11 * top
    for low in (0.0, top - bar):
        strip = np.array([(-half, low), (half, low), (half, low + bar), (-half, low + bar)])
        worn = _between(wood * 0.7, wood * 0.95, canvas.texture("speckle", rng, 2))
        canvas.paint(canvas.polygon(strip), worn, light, 0.3)
    brace = np.array([(-half, bar), (-half + 0.12, bar), (half, top - bar), (half - 0.12, top - bar)])
    canvas.paint(canvas.polygon(brace), wood * 0.85, light, 0.3)


def _mushroom(canvas: Canvas, rng: np.random.Generator, light: np.ndarray) -> None:
    cap, dots = hsv(rng.uniform(), rng.uniform(0.4, 0.95), rng.uniform(0.4, 0.9)), hsv(rng.uniform(), 0.1, 0.97)
    stem = hsv(rng.uniform(0.05, 0.15), rng.uniform(0.05, 0.3), rng.uniform(0.75, 0.95))
    foot, neck = rng.uniform(0.13, 0.2), rng.uniform(0.09, 0.14)
    wide, drop = rng.uniform(0.42, 0.62), rng.uniform(0.38, 0.55)
    right = np.array([(foot * 0.6, 0), (foot, 0.03), (neck, drop + 0.1)])
    stalk = np.concatenate([right, right[::-1] * [-1, 1]])
    canvas.paint(canvas.polygon(stalk), _between(stem * 0.8, stem, canvas.texture("grass", rng, 0.8)), light)
    dome = np.concatenate([ellipse(0, drop, wide, 1 - drop, 0, 0.5), ellipse(0, drop, wide, 0.09, 0.5, 1)])
    canvas.paint(canvas.polygon(dome), _between(cap, dots, canvas.texture("spots", rng, rng.uniform(0.8, 1.3))), light)


def _sheep(canvas: Canvas, rng: np.random.Generator, light: np.ndarray) -> None:
    fleece = hsv(rng.uniform(0.03, 0.15), rng.uniform(0.02, 0.35), rng.uniform(0.45, 0.97))
    skin = hsv(rng.uniform(0.0, 0.1), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.6))
    for leg in (-0.38, -0.22, 0.16, 0.32):
        x = leg + rng.uniform(-0.04, 0.04)
        outline = np.array([(x, 0), (x + 0.09, 0), (x + 0.1, 0.4), (x - 0.01, 0.4)])
        canvas.paint(canvas.polygon(outline), skin, light, 0.5)
    wool = _between(fleece * 0.55, fleece, canvas.texture("wool", rng, rng.uniform(0.5, 0.8)))
    canvas.paint(canvas.polygon(_wobbly(rng, 0, 0.57, 0.6, 0.33, 0.07)), wool, light)
    lift = rng.uniform(-0.15, 0.1)
    canvas.paint(canvas.polygon(ellipse(0.5, 0.86 + lift, 0.06, 0.13)), skin * 0.9, light)
    canvas.paint(canvas.polygon(_wobbly(rng, 0.64, 0.72 + lift, 0.17, 0.13, 0.03)), skin * 1.15, light)
    canvas.paint(canvas.polygon(ellipse(0.66, 0.77 + lift, 0.022, 0.026)), hsv(0, 0, 0.02), light, 0.0)


def _tree(canvas: Canvas, rng: np.random.Generator, light: np.ndarray) -> None:
    bark = hsv(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.6))
    hue = rng.uniform(0.2, 0.4) if rng.uniform() < 0.6 else rng.uniform(-0.08, 0.18)
    leaf = hsv(hue, rng.uniform(0.35, 0.85), rng.uniform(0.45, 0.9))
    low, thick, lean = rng.uniform(0.25, 0.45), rng.uniform(0.035, 0.06), rng.uniform(-0.06, 0.06)
    trunk = np.array([(-1.7 * thick, 0), (1.7 * thick, 0), (lean + thick, low + 0.15), (lean - thick, low + 0.15)])
    canvas.paint(canvas.polygon(trunk), _between(bark * 0.5, bark, canvas.texture("grass", rng, 1.2)), light)
    crown = _between(leaf * 0.35, leaf, canvas.texture("leaves", rng, rng.uniform(0.6, 0.9)))
    if rng.uniform() < 0.35:  # a conifer: three tiers
        for tier in range(3):
            base, tip, half = low + tier * (1 - low) * 0.27, low + (1 - low) * (0.5 + 0.25 * tier), 0.3 - 0.07 * tier
            edge = np.linspace(-half, half, 9)
            hem = np.stack([edge, base + 0.03 * (np.arange(9) % 2) + rng.uniform(0, 0.02, 9)], -1)
            canvas.paint(canvas.polygon(np.concatenate([hem, [(lean / 2, tip)]])), crown, light)
    else:
        for _ in range(int(rng.integers(2, 5))):
            cx, cy = lean + rng.uniform(-0.14, 0.14), rng.uniform(low + 0.2, 0.78)
            size = rng.uniform(0.2, 0.3)
            canvas.paint(canvas.polygon(_wobbly(rng, cx, cy, size, min(size * 0.9, 0.97 - cy), 0.12)), crown, light)


class Category(NamedTuple):
    """How a category is drawn: painter, height in camera heights, half width in own heights, largest tilt (radians)."""

    paint: Callable[[Canvas, np.random.Generator, np.ndarray], None]
    size: float
    half_width: float
    tilt: float


CATEGORIES: dict[str, Category] = {
    "ball": Category(_ball, 0.45, 0.52, 0.05),
    "car": Category(_car, 0.55, 1.05, 0.12),
    "crate": Category(_crate, 0.5, 0.82, 0.25),
    "mushroom": Category(_mushroom, 0.6, 0.64, 0.3),
    "sheep": Category(_sheep, 0.55, 0.85, 0.12),
    "tree": Category(_tree, 1.5, 0.6, 0.12),
}


def draw(name: str, rng: np.random.Generator, height: float, light: np.ndarray) -> Patch:
    """Draw one object of category `name`, about `height` pixels high."""
    category = CATEGORIES[name]
    canvas = Canvas(height, category.half_width, rng.uniform(-category.tilt, category.tilt), bool(rng.integers(2)))
    category.paint(canvas, rng, light)
    return canvas.patch()
