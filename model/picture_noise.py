"""Noise of pictures: how large it is, and changes of which it explains no part.

Letters in shape comments: N pictures, C channels, H and W rows and columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant, numbers
from .paths import by_maps, by_rows, resized

_EDGE = 0.01  # difference between neighbours above which an edge counts alike, however high
_MEDIAN_OF_NORMAL = 0.6745  # median of what is normally distributed, without signs, in deviations


def middling(values: Tensor) -> Tensor:
    """Return the median of values along the last axis, the larger one of an even number's two."""
    middle = values.shape[-1] // 2
    if torch.compiler.is_compiling():  # exporters only know sorting
        return values.sort(-1).values[..., middle]
    return values.kthvalue(middle + 1).values


def variance_of(noise: Tensor) -> Tensor:
    """Return the variance of normal noise (N, C, h, w) by its median: (N, 1, 1, 1)."""
    return (middling(noise.abs().flatten(1)) / _MEDIAN_OF_NORMAL).square()[:, None, None, None]


def less_noise(change: Tensor, noise: Tensor) -> Tensor:
    """Return maps (N, C, H, W), shrunk as far as noise of this variance explains them (Wiener)."""
    size = change.shape[-2:]
    coarse = [-(-side // 4) for side in size]
    near = by_maps(lambda some: F.avg_pool2d(some.square(), 4, ceil_mode=True), change, coarse)
    near = F.avg_pool2d(F.pad(near, (1, 1, 1, 1), mode="replicate"), 3, 1)

    def lessened(change: Tensor, power: Tensor, noise: Tensor) -> Tensor:
        return change * (1 - noise / power.clamp(min=1e-8)).clamp(0, 1)

    return by_rows(lessened, [change, resized(near, size), noise.expand(-1, -1, *size)])


def unevenness(light: Tensor) -> Tensor:
    """Return how fast total variation falls as each pixel of light (N, 1, H, W) rises; -4 to 4."""
    along_x = F.pad(light[..., 1:] - light[..., :-1], (0, 1))
    along_y = F.pad(light[..., 1:, :] - light[..., :-1, :], (0, 0, 0, 1))
    length = (along_x.square() + along_y.square() + _EDGE**2).sqrt()
    along_x, along_y = along_x / length, along_y / length
    from_left = F.pad(along_x[..., :-1], (1, 0))
    from_above = F.pad(along_y[..., :-1, :], (0, 0, 1, 0))
    return along_x - from_left + along_y - from_above


def noise_variance(frames: Tensor) -> Tensor:
    """Return the variance (N, 3, 1, 1) of the noise of frames (N, 3, H, W).

    It is measured by a filter to which smooth pictures are 0 (Immerkaer, CVIU 1996), in the median
    of all blocks of 8 x 8 pixels, so that edges do not count.
    """
    second = constant(numbers, 1.0, -2.0, 1.0, like=frames)
    kernel = (second[:, None] * second)[None, None].expand(3, 1, 3, 3)
    rough = F.conv2d(frames, kernel, groups=3).abs()
    blocks = F.avg_pool2d(rough, 8, ceil_mode=True).flatten(2)
    deviation = middling(blocks) * (math.sqrt(math.pi / 2) / 6)
    return deviation.square()[..., None, None]
