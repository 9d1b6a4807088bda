"""By how much a clip's spikes come late, as its blurred frames tell, and their counts put in time.

An exposure that began a little later would have the light of a little after its end, and lack that
of its start. So where spikes are late, the blurred frame is brighter than their mean by the lag
times what the end of the exposure was brighter than its start: one number fits all pixels.

Letters in shape comments: T windows, K bins, h and w rows and columns of spikes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import LUMINANCE

ENDS = 3 / 32
"""Of the exposure, that is taken for its start and for its end."""
LARGEST = 1 / 4
"""Of the exposure: a greater lag is not believed."""
SURE = 0.25
"""Of the squared difference between blurred frames and spikes, that a lag must explain."""

_REPEATS = 3
_POOLED = 4  # pixels on a side whose mean is compared: single ones have few spikes


def lag_planes(counts: Tensor, blur: Tensor) -> Tensor:
    """Return what of windows tells their lag, so that large ones can be read one by one.

    Args:
        counts, blur: As in `lag_from_blur`.

    Returns:
        (..., 1 + K, n): the blurred frames' luminance, and the spikes of each bin, of places of a
        few pixels. Of windows one by one, `torch.cat` along n.
    """
    values = counts.to(torch.float32)
    weights = torch.tensor(LUMINANCE, dtype=torch.float32, device=blur.device)
    light = torch.einsum("...chw,c->...hw", blur.float(), weights)
    places = max(1, counts.shape[-2] // _POOLED), max(1, counts.shape[-1] // _POOLED)
    seen = F.adaptive_avg_pool2d(light.flatten(0, -3)[:, None], places)  # (N, 1, rows, columns)
    bins = F.adaptive_avg_pool2d(values.flatten(0, -4), places)  # (N, K, rows, columns)
    planes = torch.cat([seen, bins], 1).flatten(2)  # (N, 1 + K, rows * columns)
    planes = planes.unflatten(0, counts.shape[:-3])  # (..., T, 1 + K, n)
    return planes.transpose(-3, -2).flatten(-2)


def lag_of_planes(planes: Tensor) -> Tensor:
    """Return the lag (...) of planes (..., 1 + K, n), as a share of the exposure.

    What light changes by is taken from the ends of the exposure, which a lag has moved. So bins are
    moved by the lag found, and what is left of it is found again.
    """
    seen, bins = planes[..., 0, :], planes[..., 1:, :]
    number = bins.shape[-2]
    lag, believed = _lag_of(seen, bins)
    for _ in range(_REPEATS):
        moved = (lag * number).round()
        left, _ = _lag_of(seen, delay(bins[..., None, :], -moved.long())[..., 0, :])
        lag = moved / number + left
    return torch.where(believed & (lag.abs() <= LARGEST), lag, 0.0)


def _lag_of(seen: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lag (...) of (..., n) and (..., K, n) to the first order, and whether it tells."""
    ends = max(1, round(ENDS * bins.shape[-2]))
    mean, start, end = bins.mean(-2), bins[..., :ends, :].mean(-2), bins[..., -ends:, :].mean(-2)
    gain = mean.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1e-6)
    missing, change = gain * seen - mean, end - start
    fit, power = (missing * change).sum(-1), change.square().sum(-1)
    lag = fit / power.clamp(min=1e-12)
    explained = lag * fit >= SURE * missing.square().sum(-1)
    return lag, explained & (lag.abs() <= LARGEST)


def delay(counts: Tensor, bins: Tensor) -> Tensor:
    """Return counts (..., K, h, w) `bins` (...) whole bins later; end bins are repeated."""
    number = counts.shape[-3]
    source = torch.arange(number, device=counts.device) - bins[..., None]  # (..., K)
    source = source.clamp(0, number - 1)[..., None, None]
    return counts.gather(-3, source.expand_as(counts))
