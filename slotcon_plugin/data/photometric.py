"""Colour jitter, grey, blur and solarisation of whole batches, each sample with parameters of its own.

The parameters are drawn where a sample is made (from its key) and travel as a small vector; the pixels are worked on
where the model is. Which samples an operation concerns is decided from the vectors on the host, so nothing waits for
the device, and there is no loop over samples.

All pixel functions take and return float RGB in [0, 1], (N, 3, H, W).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Layout of the parameter vector. Columns 0-3 are the jitter's factors, 4-7 say which of the four comes at each step.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDER = slice(4, 8)
GREY, BLUR_SIGMA, SOLARISE = 8, 9, 10
NUM_PARAMETERS = 11

# A sample that nothing happens to.
NEUTRAL = (1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0)

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision and Pillow
SOLARISE_THRESHOLD = 128 / 255


@dataclass(frozen=True)
class PhotometricConfig:
    """Strengths and probabilities of one view's photometric augmentation.

    Args:
        brightness, contrast, saturation: factors are drawn from [1 - value, 1 + value].
        hue: shift is drawn from [-value, value], in turns of the colour wheel; at most .5.
        jitter_prob: probability of those four, applied in random order.
        grey_prob: probability of dropping the colour.
        blur_sigma: range of the Gaussian blur's standard deviation, in pixels of the view.
        blur_prob: probability of the blur.
        solarise_prob: probability of inverting the bright pixels.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_prob: float = 0.8
    grey_prob: float = 0.2
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_prob: float = 1.0
    solarise_prob: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter_prob", "grey_prob", "blur_prob", "solarise_prob", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"photometric {name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"photometric hue must lie in [0, .5], got {self.hue}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"photometric blur_sigma must be a range of positive sigmas, got {self.blur_sigma}")


# The recipe of BYOL that SlotCon uses (arXiv 2205.15288, appendix): the first view is always blurred.
RECIPE = (PhotometricConfig(), PhotometricConfig(blur_prob=0.1, solarise_prob=0.2))


def draw_photometric(rng: np.random.Generator, config: PhotometricConfig) -> np.ndarray:
    """Parameters of one view: (NUM_PARAMETERS,) float32, see the layout above.

    Every operation's numbers are drawn whether it happens or not, so that they do not depend on each other.
    """
    u = rng.random(9).tolist()
    order = rng.permutation(4)
    values = np.array(NEUTRAL, dtype=np.float32)
    if u[0] < config.jitter_prob:
        values[BRIGHTNESS] = 1 + config.brightness * (2 * u[1] - 1)
        values[CONTRAST] = 1 + config.contrast * (2 * u[2] - 1)
        values[SATURATION] = 1 + config.saturation * (2 * u[3] - 1)
        values[HUE] = config.hue * (2 * u[4] - 1)
        values[ORDER] = order
    values[GREY] = u[5] < config.grey_prob
    if u[6] < config.blur_prob:
        values[BLUR_SIGMA] = config.blur_sigma[0] + u[7] * (config.blur_sigma[1] - config.blur_sigma[0])
    values[SOLARISE] = u[8] < config.solarise_prob
    return values


def apply_photometric(pixels: Tensor, parameters: Tensor) -> Tensor:
    """Jitter, then grey, blur and solarise, as each sample's parameters say.

    Args:
        pixels: (N, 3, H, W) float in [0, 1], on any device; may be overwritten.
        parameters: (N, NUM_PARAMETERS) float32, on the CPU.

    Returns:
        (N, 3, H, W) float in [0, 1].
    """
    host = parameters.numpy()
    pixels = color_jitter(pixels, host)
    grey = _indices(host[:, GREY] > 0, pixels)
    if grey is not None:
        pixels[grey] = luma(pixels[grey]).expand(-1, 3, -1, -1)
    blurred = host[:, BLUR_SIGMA] > 0
    index = _indices(blurred, pixels)
    if index is not None:
        pixels[index] = gaussian_blur(pixels[index], torch.from_numpy(host[blurred, BLUR_SIGMA]))
    solarised = _indices(host[:, SOLARISE] > 0, pixels)
    if solarised is not None:
        pixels[solarised] = solarise(pixels[solarised])
    return pixels


def color_jitter(pixels: Tensor, host: np.ndarray) -> Tensor:
    """torchvision's ColorJitter, each sample with factors and an order of its own.

    Brightness, contrast and saturation all blend the picture with another one: black, its mean grey, its own grey.
    So every step is ONE blend of the whole batch, with targets that differ among the samples, and hue for those
    whose turn it is.
    """
    order = host[:, ORDER].astype(np.int64)
    for step in range(4):
        turn = order[:, step]
        factor = np.where(turn == HUE, 1, host[np.arange(len(host)), np.minimum(turn, SATURATION)])
        if (factor != 1).any():
            pixels = _blend(pixels, factor, to_mean=turn == CONTRAST, to_grey=turn == SATURATION)
        shifts = (turn == HUE) & (host[:, HUE] != 0)
        index = _indices(shifts, pixels)
        if index is not None:
            pixels[index] = shift_hue(pixels[index], torch.from_numpy(host[shifts, HUE]))
    return pixels


def _blend(pixels: Tensor, factor: np.ndarray, to_mean: np.ndarray, to_grey: np.ndarray) -> Tensor:
    """clamp(factor * pixels + (1 - factor) * target), the target being the mean grey, the grey picture, or black."""
    rest = 1 - factor
    coefficients = torch.from_numpy(np.stack([factor, rest * to_mean, rest * to_grey]).astype(np.float32))
    scale, mean_share, grey_share = coefficients.to(pixels.device, non_blocking=True)[..., None, None, None].unbind(0)
    grey = luma(pixels)
    target = grey * grey_share + grey.mean((1, 2, 3), keepdim=True) * mean_share
    return pixels.mul_(scale).add_(target).clamp_(0, 1)


def luma(pixels: Tensor) -> Tensor:
    """Grey picture (N, 1, H, W)."""
    red, green, blue = pixels.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def shift_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` (N,), in turns of the colour wheel, with value and saturation kept (HSV).

    The way back from HSV is the closed form f(n) = V - C * clamp(min(k, 4 - k), 0, 1), k = (n + 6 H) mod 6, with
    n = 5, 3, 1 for red, green, blue and chroma C = V * S.
    """
    red, green, blue = pixels.split(1, dim=1)
    value, low = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    chroma = value - low
    unit = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        value == red,
        (green - blue) / unit,
        torch.where(value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit),
    )
    sector = sector + 6 * shift.to(pixels.device, non_blocking=True)[:, None, None, None]
    offset = pixels.new_tensor([5.0, 3.0, 1.0])[:, None, None]
    k = torch.remainder(sector + offset, 6)
    return value - chroma * k.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)


def gaussian_blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Blur by a Gaussian of ``sigma`` (N,) pixels, out to three of the largest sigma; the border is mirrored.

    Each axis is one product with a banded matrix, which holds the border's rule too.

    Args:
        sigma: (N,) positive, on the CPU.
    """
    radius = max(1, math.ceil(3 * float(sigma.max())))
    sigma = sigma.to(pixels.device, non_blocking=True)
    height, width = pixels.shape[-2:]
    rows = _blur_matrix(sigma, height, radius)[:, None]
    columns = rows if height == width else _blur_matrix(sigma, width, radius)[:, None]
    return rows @ pixels @ columns.mT


def _blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """(N, size, size): row i holds the weights of the pixels that make pixel i."""
    taps = torch.arange(-radius, radius + 1, device=sigma.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    position = torch.arange(size, device=sigma.device)[:, None] + taps.long()
    period = max(1, 2 * (size - 1))
    position = position.remainder(period)
    position = torch.minimum(position, period - position).expand(len(sigma), -1, -1)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrix.scatter_add_(2, position, weights[:, None].expand(-1, size, -1).contiguous())


def solarise(pixels: Tensor) -> Tensor:
    """Invert what is as bright as the threshold or brighter."""
    return torch.where(pixels >= SOLARISE_THRESHOLD, 1 - pixels, pixels)


def _indices(chosen: np.ndarray, like: Tensor) -> Tensor | None:
    """Where the host's mask is set, on the device of ``like``; None for nowhere."""
    if not chosen.any():
        return None
    return torch.from_numpy(np.flatnonzero(chosen)).to(like.device, non_blocking=True)
