"""Normalisation of voxels: what the spike encoder sees of them. Runs on the tensors' device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..configs.schema import NormConfig
from ..errors import SpikeDeblurError
from .constants import constant, numbers

EPS = 1e-12
"""Least standard deviation that is divided by."""
DARK = 0.05
"""Luminance below which `relative` fades out instead of amplifying noise."""
LIMIT = 3.0
"""Largest relative deviation."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue, as the spike camera has them."""


class NormalizeError(SpikeDeblurError):
    """Counts can't be normalised as asked."""


def normalize_counts(
    counts: Tensor, samples: Tensor, gain: float | Tensor | None, norm: NormConfig
) -> Tensor:
    """Normalise voxel counts.

    Args:
        counts: (..., K, h, w) raw counts, any integer or floating type; for `relative` better
            light in spikes, by the intervals between them (`pipeline.spikes.intervals`).
        samples: (...) spike samples N in each window, integer, at least K. Sample j is in bin
            floor(j K / N). Not read by `log1p`.
        gain: Spikes a sample at unit luminance: one number, a tensor (...) with one for each
            window (NaN: unknown), or None: unknown. `rate` needs it. `relative` takes 1 if it is
            unknown, which only shifts where darkness begins, and does not read it if there is a
            curve. Not read by `log1p`.
        norm: Mode, mean and standard deviation, or a camera's curve.

    Returns:
        (..., K, h, w) float32.

    Raises:
        NormalizeError: `rate` without gain, fewer samples than bins, or shapes do not fit.
    """
    values = counts.to(torch.float32)
    if norm.MODE == "log1p":
        return _standardize(values.log1p(), norm)
    rate = values / _samples_per_bin(values, samples)
    if norm.MODE == "rate":
        return _standardize(rate / _known(gain, rate, norm.MODE), norm)
    mean = rate.mean(-3, keepdim=True)  # (..., 1, h, w)
    if norm.CURVE is None:
        gain = _known(gain, rate, norm.MODE)
        luminance, slope = mean / gain, 1 / gain
    else:
        # Bins hold too few spikes for the curve itself, which would be biased; its slope is not.
        luminance, slope = _along(norm.CURVE, mean)
    deviation = (rate - mean) * slope / (luminance + DARK)
    return deviation.clamp(-LIMIT, LIMIT)


def luminance(frames: Tensor) -> Tensor:
    """Return the luminance (..., H, W) of RGB frames (..., 3, H, W)."""
    return torch.einsum("...chw,c->...hw", frames, constant(numbers, *LUMINANCE, like=frames))


def _along(curve: Sequence[float], rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the slope of a polynomial, highest power first; neither is below 0."""
    luminance, slope = torch.zeros_like(rate), torch.zeros_like(rate)
    for coefficient in curve:  # Horner's scheme
        slope = slope * rate + luminance
        luminance = luminance * rate + coefficient
    return luminance.clamp(min=0), slope.clamp(min=0)


def _samples_per_bin(values: Tensor, samples: Tensor) -> Tensor:
    """Return the samples in each bin (..., K, 1, 1): ceil((b + 1) N / K) - ceil(b N / K)."""
    bins = values.shape[-3]
    samples = torch.as_tensor(samples)
    if samples.shape != values.shape[:-3]:
        raise NormalizeError(
            f"expected one number of samples a window, {tuple(values.shape[:-3])}, got "
            f"{tuple(samples.shape)}"
        )
    if (samples < bins).any():
        raise NormalizeError(
            f"expected at least {bins} spike samples a window, one for each bin, got "
            f"{int(samples.min())}; use fewer bins"
        )
    edges = torch.arange(bins + 1, device=samples.device) * samples[..., None].long()
    edges = -torch.div(-edges, bins, rounding_mode="floor")
    return edges.diff()[..., None, None].to(values, non_blocking=True)


def _known(gain: float | Tensor | None, rate: Tensor, mode: str) -> Tensor:
    """Return the gain (..., 1, 1, 1), which broadcasts over a window's bins and pixels."""
    known = torch.as_tensor(float("nan") if gain is None else gain, dtype=torch.float32)
    if mode == "relative":
        known = known.nan_to_num(nan=1.0)
    elif known.isnan().any():
        raise NormalizeError(
            "DATA.NORM.MODE rate needs the gain (spikes a sample at unit luminance), and a "
            "recording has none; give it to `spikedeblur align --gain`, or use relative or log1p"
        )
    if known.device.type == "cpu" and (known <= 0).any():  # others are measured, and to ask waits
        raise NormalizeError(f"expected a gain above 0, got {float(known.min())}")
    return known[..., None, None, None].to(rate.device, non_blocking=True)


def _standardize(values: Tensor, norm: NormConfig) -> Tensor:
    if norm.MEAN is None or norm.STD is None:
        return values
    return (values - norm.MEAN) / max(norm.STD, EPS)
