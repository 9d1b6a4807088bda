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

_POOLED = 4  # pixels on a side whose mean is compared: single ones have few spikes


def lag_from_blur(counts: Tensor, blur: Tensor) -> Tensor:
    """Return by how many bins the spikes of clips come late; less than 0: early.

    Args:
        counts: (..., T, K, h, w) raw counts.
        blur: (..., T, 3, H, W) RGB of linear light, of the same field.

    Returns:
        (...) float32; 0 where nothing moves, or no lag would explain the difference.
    """
    return lag_of_planes(lag_planes(counts, blur)) * counts.shape[-3]


def lag_planes(counts: Tensor, blur: Tensor) -> Tensor:
    """Return what of windows tells their lag, so that large ones can be read one by one.

    Args:
        counts, blur: As in `lag_from_blur`.

    Returns:
        (..., 4, n): the blurred frames' luminance, and the spikes' mean over the exposure, its
        start and its end. Of windows one by one, `torch.cat` along n.
    """
    ends = max(1, round(ENDS * counts.shape[-3]))
    values = counts.to(torch.float32)
    weights = torch.tensor(LUMINANCE, dtype=torch.float32, device=blur.device)
    light = torch.einsum("...chw,c->...hw", blur.float(), weights)
    rows, columns = (max(1, side // _POOLED) for side in counts.shape[-2:])
    planes = (
        light,
        values.mean(-3),
        values[..., :ends, :, :].mean(-3),
        values[..., -ends:, :, :].mean(-3),
    )
    pooled = [F.adaptive_avg_pool2d(plane.flatten(0, -3), (rows, columns)) for plane in planes]
    return torch.stack([plane.reshape(*counts.shape[:-4], -1) for plane in pooled], -2)


def lag_of_planes(planes: Tensor) -> Tensor:
    """Return the lag (...) of planes (..., 4, n), as a share of the exposure."""
    seen, mean, start, end = planes.unbind(-2)
    gain = mean.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1e-6)
    missing, change = gain * seen - mean, end - start
    fit, power = (missing * change).sum(-1), change.square().sum(-1)
    lag = fit / power.clamp(min=1e-12)
    explained = lag * fit >= SURE * missing.square().sum(-1)
    return torch.where(explained & (lag.abs() <= LARGEST), lag, 0.0)


def delay(counts: Tensor, bins: Tensor) -> Tensor:
    """Return counts (..., K, h, w) `bins` (...) whole bins later; end bins are repeated."""
    number = counts.shape[-3]
    source = torch.arange(number, device=counts.device) - bins[..., None]  # (..., K)
    source = source.clamp(0, number - 1)[..., None, None]
    return counts.gather(-3, source.expand_as(counts))


def in_time(counts: Tensor, blur: Tensor) -> Tensor:
    """Return counts (..., T, K, h, w) moved by their lag, in whole bins; see `lag_from_blur`."""
    lag = lag_from_blur(counts, blur).round().long()
    return delay(counts, -lag[..., None].expand(counts.shape[:-3]))
