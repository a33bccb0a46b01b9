"""One colour a prototype: the same in every picture, told apart by colour-blind readers as far as that goes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# sRGB (linear) -> what dichromats see (Machado et al. 2009, severity 1): nothing, protanopia, deuteranopia.
_VISIONS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
# Linear sRGB -> cone responses -> OKLab (Ottosson 2020).
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FIRST = (0, 114, 178)  # the blue of Okabe and Ito


def perceived(rgb: np.ndarray) -> np.ndarray:
    """OKLab coordinates of sRGB colours ``(N, 3)`` uint8 as three kinds of readers see them: ``(3, N, 3)``.

    In order: normal sight, protanopia, deuteranopia. Distances are roughly as large as they look.
    """
    srgb = rgb.astype(np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.einsum("vij,nj->vni", _VISIONS, linear).clip(0, 1)
    return np.cbrt(seen @ _TO_CONES.T) @ _TO_LAB.T


@lru_cache(maxsize=4)
def prototype_colors(num_prototypes: int) -> np.ndarray:
    """Colours ``(K, 3)`` uint8, RGB. Colour k depends on k alone, not on K.

    Each next colour is the one that is farthest from the nearest earlier one. How far apart two colours are is the
    smaller of how far most readers see them and twice how far dichromats do: a palette made for the latter alone
    would be all blue and yellow. Very dark, very light and grey ones, which look like parts of a photo, are left out.
    """
    levels = np.linspace(0, 255, 18).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    lab = perceived(candidates)
    usable = (np.abs(lab[0, :, 0] - 0.66) < 0.26) & (np.hypot(lab[0, :, 1], lab[0, :, 2]) > 0.07)
    candidates, lab = candidates[usable], lab[:, usable]

    def distance(index: int) -> np.ndarray:
        seen = np.linalg.norm(lab - lab[:, index : index + 1], axis=-1)
        return (seen * [[1], [2], [2]]).min(axis=0)

    chosen = [int(np.abs(candidates.astype(int) - _FIRST).sum(axis=1).argmin())]
    nearest = distance(chosen[0])
    while len(chosen) < min(num_prototypes, len(candidates)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distance(chosen[-1]))
    colors = candidates[chosen][np.arange(num_prototypes) % len(candidates)]
    colors.setflags(write=False)
    return colors
