"""The gain of a spike camera, read off the blurred frames beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import constant, numbers
from .normalize import LUMINANCE


def gain_from_blur(counts: Tensor, samples: Tensor, blur: Tensor) -> Tensor:
    """Return the gain, spikes a sample at unit luminance, of each window.

    Spikes and blurred frame of an exposure saw the same light, so the gain is the mean rate over
    the mean luminance.

    Args:
        counts: (..., K, h, w) raw counts, or light in spikes.
        samples: (...) spike samples in each window.
        blur: (..., 3, H, W) RGB in [0, 1], of the same field.

    Returns:
        (...) float32; 1 where there are no spikes or no light.
    """
    exposed = samples.to(counts.device, torch.float32, non_blocking=True)
    rate = counts.to(torch.float32).sum(-3).mean((-2, -1)) / exposed
    colours = blur.float().mean((-2, -1))  # (..., 3)
    light = (colours * constant(numbers, *LUMINANCE, like=colours)).sum(-1)
    return torch.where((rate > 0) & (light > 0), rate / light, 1.0)
