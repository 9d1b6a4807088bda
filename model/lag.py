"""The lag of a clip's spikes behind its blurred frames, and counts put in time.

An exposure that began a little later would gain the light after its end, and lose the light at its
start. So if spikes are late, the blurred frame differs from their mean by the lag times the change
of light from the exposure's start to its end; the lag is one number that fits all pixels.

Letters in shape comments: T windows, K bins, h and w rows and columns of spikes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import luminance

ENDS = 3 / 32
"""Share of the exposure that counts as its start, and as its end."""
LARGEST = 1 / 4
"""Largest lag that is believed, as a share of the exposure."""
SURE = 0.25
"""Least share of the squared difference of blurred frames and spikes that a lag must explain."""

_REPEATS = 3
_POOLED = 4  # side, in spike pixels, of the squares that are compared: single pixels are noisy


def lag_planes(counts: Tensor, blur: Tensor) -> Tensor:
    """Return the means over small squares from which `lag_of_planes` finds the lag.

    Large windows can be read one by one: `torch.cat` joins their planes along n.

    Args:
        counts: (..., T, K, h, w) raw counts, or light in spikes.
        blur: (..., T, 3, H, W) RGB of linear light, of the same field.

    Returns:
        (..., 1 + K, n): luminance of the blurred frames, then spikes of each bin, in n squares.
    """
    values = counts.to(torch.float32)
    light = luminance(blur.float())
    squares = max(1, counts.shape[-2] // _POOLED), max(1, counts.shape[-1] // _POOLED)
    seen = F.adaptive_avg_pool2d(light.flatten(0, -3)[:, None], squares)  # (N, 1, rows, columns)
    bins = F.adaptive_avg_pool2d(values.flatten(0, -4), squares)  # (N, K, rows, columns)
    planes = torch.cat([seen, bins], 1).flatten(2)  # (N, 1 + K, rows * columns)
    planes = planes.unflatten(0, counts.shape[:-3])  # (..., T, 1 + K, n)
    return planes.transpose(-3, -2).flatten(-2)


def lag_of_planes(planes: Tensor) -> Tensor:
    """Return the lag (...) of planes (..., 1 + K, n), as a share of the exposure.

    Less than 0: spikes are early. 0: nothing moves, or no lag explains the difference. The ends of
    the exposure, from which the change of light is taken, are late themselves; so bins are moved
    by the lag, and the rest of it is measured again.
    """
    seen, bins = planes[..., 0, :], planes[..., 1:, :]
    number = bins.shape[-2]
    lag, believed = _lag_of(seen, bins)
    for _ in range(_REPEATS):
        moved = (lag * number).round()
        rest, _ = _lag_of(seen, delay(bins[..., None, :], -moved.long())[..., 0, :])
        lag = moved / number + rest
    return torch.where(believed & (lag.abs() <= LARGEST), lag, 0.0)


def _lag_of(seen: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first-order lag (...) of (..., n) and (..., K, n) and whether to believe it."""
    ends = max(1, round(ENDS * bins.shape[-2]))
    mean, start, end = bins.mean(-2), bins[..., :ends, :].mean(-2), bins[..., -ends:, :].mean(-2)
    gain = mean.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1e-6)
    missing, change = gain * seen - mean, end - start
    fit, power = (missing * change).sum(-1), change.square().sum(-1)
    lag = fit / power.clamp(min=1e-12)
    explained = lag * fit >= SURE * missing.square().sum(-1)
    return lag, explained & (lag.abs() <= LARGEST)


def delay(counts: Tensor, bins: Tensor) -> Tensor:
    """Return counts (..., K, h, w) moved later by whole `bins` (...); end bins are repeated."""
    number = counts.shape[-3]
    source = torch.arange(number, device=counts.device) - bins[..., None]  # (..., K)
    source = source.clamp(0, number - 1)[..., None, None]
    return counts.gather(-3, source.expand_as(counts))
