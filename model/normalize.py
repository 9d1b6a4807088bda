"""From raw voxel counts to what the spike encoder sees. Runs on the tensors' device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..configs.schema import NormConfig
from ..errors import SpikeDeblurError

EPS = 1e-12
DARK = 0.05  # luminance below which `relative` fades out instead of amplifying noise
LIMIT = 3.0
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue, as the spike camera weighs them


class NormalizeError(SpikeDeblurError):
    """Counts can't be normalised as asked."""


def normalize_counts(
    counts: Tensor, samples: Tensor, gain: float | Tensor | None, norm: NormConfig
) -> Tensor:
    """Normalise voxel counts.

    Args:
        counts: (..., K, h, w) raw counts, any integer or floating type.
        samples: (...) spike samples N in each window, integer, at least K. Sample j is in bin
            floor(j K / N). Not read by `log1p`.
        gain: Spikes a sample at unit luminance: one number, a tensor (...) with one for each
            window (NaN: unknown), or None: unknown. `rate` needs it; `relative` takes 1 where
            it is unknown, which shifts only where darkness begins, and does not read it where
            there is a curve. Not read by `log1p`.
        norm: Mode, mean and standard deviation, or a camera's curve.

    Returns:
        (..., K, h, w) float32.

    Raises:
        NormalizeError: `rate` without gain, fewer samples than bins, or shapes do not fit.
    """
    values = counts.to(torch.float32)
    if norm.MODE == "log1p":
        return _standardize(values.log1p(), norm)
    edges = _bin_edges(values, samples)
    if norm.MODE == "rate":
        rate = values / _widths(edges)
        return _standardize(rate / _known(gain, rate, norm.MODE), norm)
    rate = spread_over_intervals(values, edges) / _widths(edges)
    mean = rate.mean(-3, keepdim=True)  # (..., 1, h, w)
    if norm.CURVE is None:
        gain = _known(gain, rate, norm.MODE)
        luminance, slope = mean / gain, 1 / gain
    else:
        # Of single bins the curve would be biased: they hold few spikes. Its slope is not.
        luminance, slope = _along(norm.CURVE, mean)
    deviation = (rate - mean) * slope / (luminance + DARK)
    return deviation.clamp(-LIMIT, LIMIT)


def _along(curve: Sequence[float], rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return a polynomial, highest power first, and its slope, neither below 0."""
    luminance, slope = torch.zeros_like(rate), torch.zeros_like(rate)
    for coefficient in curve:  # Horner's scheme
        slope = slope * rate + luminance
        luminance = luminance * rate + coefficient
    return luminance.clamp(min=0), slope.clamp(min=0)


def gain_from_blur(counts: Tensor, samples: Tensor, blur: Tensor) -> Tensor:
    """Return spikes a sample at unit luminance, as the blurred frames show it.

    Over an exposure, spikes and blurred frame saw the same light, so the gain is the mean rate
    over the mean luminance.

    Args:
        counts: (..., K, h, w) raw counts.
        samples: (...) spike samples in each window.
        blur: (..., 3, H, W) RGB in [0, 1], of the same field.

    Returns:
        (...) float32; 1 where there are no spikes or no light.
    """
    rate = counts.to(torch.float32).sum(-3).mean((-2, -1)) / samples.to(torch.float32)
    weights = torch.tensor(LUMINANCE, dtype=torch.float32, device=blur.device)
    light = (blur.float().mean((-2, -1)) * weights).sum(-1)
    return torch.where((rate > 0) & (light > 0), rate / light, 1.0)


def spread_over_intervals(counts: Tensor, edges: Tensor) -> Tensor:
    """Spread each spike over the time since the one before it, in which its light came.

    A bin that holds few spikes, or none, so gets what light it had: of what a high threshold
    makes of dim light no less is known, only later. As texture from interval does (Zhu et al.,
    ICME 2019), with firing times known to the bin; spikes of one bin are even in it.

    Args:
        counts: (..., K, h, w) float32.
        edges: (..., K + 1), where bins begin and end, in samples.

    Returns:
        (..., K, h, w) float32; within one spike of the counts at each edge. Before a pixel's
        first spike and after its last it goes on as between the two spikes next to it.
    """
    edges = edges.to(counts)[..., None, None]  # (..., K + 1, 1, 1)
    start, width = edges[..., :-1, :, :], edges.diff(dim=-3)
    within = width / (2 * counts.clamp(min=1))  # from an edge to the nearest spike
    never = 2 * float(edges.max()) + 1
    fired = counts > 0
    first_in_bin = torch.where(fired, start + within, never)
    last_in_bin = torch.where(fired, start + width - within, -never)
    # Per edge: the spike before it, and the one after it.
    before = F.pad(last_in_bin, (0, 0, 0, 0, 1, 0), value=-never).cummax(-3).values
    after = F.pad(first_in_bin, (0, 0, 0, 0, 0, 1), value=never).flip(-3).cummin(-3).values.flip(-3)
    number = F.pad(counts.cumsum(-3), (0, 0, 0, 0, 1, 0))  # (..., K + 1, h, w)
    total, first, last = number[..., -1:, :, :], after[..., :1, :, :], before[..., -1:, :, :]
    between = (before > -never) & (after < never)
    pace = torch.where(between, 1 / (after - before), total / edges[..., -1:, :, :])
    bins = counts.shape[-3]
    edge = torch.arange(bins + 1, device=counts.device)[:, None, None]
    earliest = torch.where(between, edge, bins).amin(-3, keepdim=True)
    latest = torch.where(between, edge, 0).amax(-3, keepdim=True)
    light = number + (edges - before) * pace
    light = torch.where(
        before == -never, (1 - (first - edges) * pace.gather(-3, earliest)).clamp(min=0), light
    )
    light = torch.where(
        after == never,
        torch.minimum(total + (edges - last) * pace.gather(-3, latest), total + 1),
        light,
    )
    return torch.where(total > 0, light.diff(dim=-3), 0.0)


def _bin_edges(values: Tensor, samples: Tensor) -> Tensor:
    """Where bins begin and end (..., K + 1), in samples: ceil(b N / K)."""
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
    return -torch.div(-edges, bins, rounding_mode="floor").to(values.device)


def _widths(edges: Tensor) -> Tensor:
    """Samples in each bin (..., K, 1, 1), float32."""
    return edges.diff()[..., None, None].float()


def _known(gain: float | Tensor | None, rate: Tensor, mode: str) -> Tensor:
    """The gain, broadcast over a window's bins and pixels."""
    known = torch.as_tensor(float("nan") if gain is None else gain, dtype=torch.float32)
    if mode == "relative":
        known = known.nan_to_num(nan=1.0)
    elif known.isnan().any():
        raise NormalizeError(
            "DATA.NORM.MODE rate needs the gain (spikes a sample at unit luminance), and a "
            "recording has none; give it to `spikedeblur align --gain`, or use relative or log1p"
        )
    if (known <= 0).any():
        raise NormalizeError(f"expected a gain above 0, got {float(known.min())}")
    return known[..., None, None, None].to(rate.device)


def _standardize(values: Tensor, norm: NormConfig) -> Tensor:
    if norm.MEAN is None or norm.STD is None:
        return values
    return (values - norm.MEAN) / max(norm.STD, EPS)
