"""The lag of a sequence's spikes behind its images, its drift, and how sure both are.

    coarse   all lags that the recordings allow, in steps    -> which lobe, and its best rival
    fine     single samples around that lobe's top           -> the lag, to a fraction of a sample

One lag is estimated from all images together. How far chance moves it shows when each band of
rows is left out in turn (the jackknife: Efron, Stein, "The jackknife estimate of variance", Ann.
Statist. 1981), and in the scatter of the images' own lags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .sliding import Box, Curve, Likeness, Reference, busiest_box, slide

_FINE = 24
"""Samples to each side of the top that the parabola may take. Measured on blurred frames: 24 is
best, 0.07 to 0.1 samples off a frame, against 0.15 to 0.25 of 8 and 0.3 to 0.5 of 48."""
_LEAST_ERROR = 0.1
"""Standard error in samples that a lag has at least: what a parabola leaves of a real curve."""
_MOST_MOVES = 8
_ALTERNATIONS = 20
_MIN_CONTRAST = 1e-3
"""Standard deviation of luminance under which an image is flat."""
_MIN_IMAGES = 4
"""With fewer, a drift could not be told from chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Where images and spikes fit best."""

    lag: float
    """Samples by which the best match comes after the expected one, at sample `at`."""
    at: float
    """Expected sample, in the middle of the images that the lag is from."""
    error: float
    """Standard error of the lag, in samples."""
    drift: float | None
    """Samples that the lag grows by, a sample; None: fewer than three images, or no telling."""
    drift_error: float | None
    peak: float
    """Correlation at the lag."""
    rival: float | None
    """The best outside the main lobe; None: there is no outside."""
    rival_lag: float | None
    """Where it is, in samples."""
    lead: float
    """By how many of its standard errors the peak leads the rival."""
    drop: float
    """By how much the curve falls from its peak, on the side where it falls less."""
    at_edge: bool
    """The peak is at the end of what could be searched."""
    width: int
    """Samples of the TFP that fits best."""
    lags: Curve
    """(L,) samples, of `curve`."""
    curve: Curve
    """(L,) correlation; NaN where no recording reaches."""


def find_lag(references: list[Reference], reach: int, step: int) -> Match | None:
    """Find where the images fit their recordings best.

    Args:
        references: images of one sequence and of one kind; at least one.
        reach: samples to each side to search, as far as recordings go.
        step: samples of the coarse search.

    Returns:
        None where no lag can be compared: flat images or spikes, or all outside.
    """
    references = [r for r in references if float(np.nan_to_num(np.nanstd(r.image))) > _MIN_CONTRAST]
    if not references:
        return None
    box = busiest_box([r.image for r in references])
    if box is None:
        return None
    widths = tuple(sorted({max(1, round(width / step)) for width in references[0].widths}))
    lags = (-float(reach // step * step), float(reach // step * step))
    coarse = [slide(r, box, widths, lags, step) for r in references]
    best: tuple[float, int] | None = None
    for i in range(len(widths)):
        curve = combine([likenesses[i].curve() for likenesses in coarse])
        if curve is not None and (best is None or np.nanmax(curve) > best[0]):
            best = float(np.nanmax(curve)), i
    if best is None:
        return None
    chosen = [likenesses[best[1]] for likenesses in coarse]
    grid = np.arange(len(chosen[0].lags)) * step + lags[0]
    whole = _together(chosen, grid)
    assert whole is not None
    shape = _shape(whole)
    at_edge = shape.top in (shape.first, shape.last)
    lead = _lead(chosen, grid, shape)
    about = float(grid[shape.top])
    fine_widths = _fine_widths(references[0].widths, widths[best[1]] * step)
    tried = [
        found
        for width in fine_widths
        if (found := _refine(references, box, width, about, step, shape)) is not None
    ]
    if not tried:
        return None
    fine = max(tried, key=lambda found: found.peak)
    return Match(
        lag=fine.lag,
        at=fine.at,
        error=fine.error,
        drift=fine.drift,
        drift_error=fine.drift_error,
        peak=fine.peak,
        rival=shape.rival,
        rival_lag=None if shape.rival_at is None else float(grid[shape.rival_at]),
        lead=lead,
        drop=shape.drop,
        at_edge=at_edge,
        width=fine.width,
        lags=grid,
        curve=whole,
    )


def combine(curves: list[Curve]) -> Curve | None:
    """Return one curve; where fewer images reach, their offset from the mean is taken out.

    None where no curve has a value.

    Images correlate differently well, so a plain mean would step where one of them ends. The
    model is curve k = common + offset k, solved by alternation.
    """
    curves = [curve for curve in curves if np.isfinite(curve).any()]
    if not curves:
        return None
    stack = np.stack(curves)  # (K, L)
    known = np.isfinite(stack)
    filled = np.where(known, stack, 0.0)
    some = known.any(axis=0)
    common = np.full(stack.shape[1], np.nan)
    offset = np.zeros((len(stack), 1))
    for _ in range(1 if (known == known[0]).all() else _ALTERNATIONS):
        mean = np.zeros(stack.shape[1])
        mean[some] = ((filled - offset) * known).sum(axis=0)[some] / known.sum(axis=0)[some]
        offset = ((filled - mean) * known).sum(axis=1, keepdims=True)
        offset /= known.sum(axis=1, keepdims=True)
        offset -= offset.mean()
    common[some] = mean[some]
    return common


@dataclass(frozen=True, slots=True)
class _Shape:
    """The main lobe of a curve, as indices into it."""

    first: int
    top: int
    last: int
    drop: float
    low: int
    """Where the lobe ends on the left."""
    high: int
    rival: float | None
    rival_at: int | None


def _shape(curve: Curve) -> _Shape:
    known = np.flatnonzero(np.isfinite(curve))
    first, last = int(known[0]), int(known[-1])
    filled = np.where(np.isfinite(curve), curve, -np.inf)
    top = int(np.argmax(filled))
    peak = float(curve[top])
    left, right = curve[first : top + 1], curve[top : last + 1]
    drop = peak - max(float(np.nanmin(left)), float(np.nanmin(right)))
    level = peak - drop / 2
    below = np.flatnonzero(filled <= level)
    low = int(below[below < top][-1]) if (below < top).any() else first
    high = int(below[below > top][0]) if (below > top).any() else last
    # On the flanks the curve is high because the peak is: a rival is a top of its own.
    before, after = (np.concatenate(([-np.inf], filled[:-1])), np.append(filled[1:], -np.inf))
    tops = (filled >= before) & (filled >= after)
    tops[low : high + 1] = False
    if not (tops & np.isfinite(filled)).any():
        return _Shape(first, top, last, drop, low, high, None, None)
    rival_at = int(np.argmax(np.where(tops, filled, -np.inf)))
    return _Shape(first, top, last, drop, low, high, float(filled[rival_at]), rival_at)


def _together(parts: list[Likeness], grid: Curve, without: int | None = None) -> Curve | None:
    """Return the common curve on `grid`; each image's own lags may lie between its points."""
    return combine([_on_grid(part, grid, without) for part in parts])


def _on_grid(part: Likeness, grid: Curve, without: int | None) -> Curve:
    curve = part.curve(without)
    known = np.isfinite(curve)
    if np.array_equal(part.lags, grid) or not known.any():
        return curve
    lags, spacing = part.lags[known], float(part.lags[1] - part.lags[0])
    out = np.interp(grid, lags, curve[known])
    # Half a step past its end a curve is as good as there; beyond, it is not known.
    out[(grid < lags[0] - spacing / 2) | (grid > lags[-1] + spacing / 2)] = np.nan
    return np.asarray(out)


def _lead(parts: list[Likeness], grid: Curve, shape: _Shape) -> float:
    """Return the peak's lead over its rival, in standard errors by the jackknife over bands."""
    if shape.rival_at is None:
        return math.inf
    leads = []
    whole = _together(parts, grid)
    assert whole is not None
    for band in range(len(parts[0].own)):
        curve = _together(parts, grid, band)
        if curve is not None:
            leads.append(float(curve[shape.top] - curve[shape.rival_at]))
    lead = float(whole[shape.top] - whole[shape.rival_at])
    error = _jackknife(leads)
    return lead / error if error > 0 else math.inf if lead > 0 else 0.0


def _jackknife(estimates: list[float]) -> float:
    """Return the standard error of an estimate, given it with each part left out in turn."""
    n = len(estimates)
    if n < 2:
        return math.nan
    values = np.array(estimates)
    return float(np.sqrt((n - 1) / n * np.square(values - values.mean()).sum()))


def _fine_widths(wanted: tuple[int, ...], best: int) -> tuple[int, ...]:
    """Return the widths near the one that was best in steps."""
    near = tuple(width for width in wanted if best / 2.2 <= width <= best * 2.2)
    return near or (min(wanted, key=lambda width: abs(width - best)),)


@dataclass(frozen=True, slots=True)
class _Fine:
    lag: float
    at: float
    error: float
    drift: float | None
    drift_error: float | None
    peak: float
    width: int


def _refine(
    references: list[Reference],
    box: Box,
    width: int,
    about: float,
    step: int,
    shape: _Shape,
) -> _Fine | None:
    """Return the lag to a fraction of a sample, from single samples around `about`."""
    lobe = (shape.high - shape.low) * step / 2
    half = max(2, min(round(lobe / 4), _FINE * max(1, step // 8)))
    unit = max(1, half // _FINE)  # so that the work is the same for any rate
    n = half // unit
    for _ in range(_MOST_MOVES):
        margin = half + step
        lags = (about - margin, about + margin)
        parts = [slide(r, box, (max(1, round(width / unit)),), lags, unit)[0] for r in references]
        # An image whose search ends within the range would bend the common curve.
        inside = [i for i, part in enumerate(parts) if np.isfinite(part.products).all()]
        used = inside or [i for i, part in enumerate(parts) if np.isfinite(part.curve()).any()]
        if not used:
            return None
        parts = [parts[i] for i in used]
        grid = np.arange(len(parts[0].lags)) * unit + lags[0]
        whole = _together(parts, grid)
        if whole is None:
            return None
        lag, peak = _vertex(grid, whole, n)
        # The coarse top may be beside the fine one, where images end: then go there.
        if min(lag - grid[0], grid[-1] - lag) >= half / 2 or not inside:
            break
        about = lag
    at = np.array([references[i].at for i in used])

    def lag_of(some: list[Likeness], band: int | None = None) -> list[float]:
        curve = _together(some, grid, band)
        return [] if curve is None else [_vertex(grid, curve, n)[0]]

    bands = range(len(parts[0].own))
    by_bands = _jackknife([x for band in bands for x in lag_of(parts, band)])
    by_images = _jackknife(
        [x for i in range(len(parts)) for x in lag_of(parts[:i] + parts[i + 1 :])]
    )
    known = [error for error in (by_bands, by_images) if math.isfinite(error)]
    error = math.hypot(max(known, default=math.inf), _LEAST_ERROR)
    drift = drift_error = None
    if len(parts) >= _MIN_IMAGES:
        own = [_vertex(part.lags, part.curve(), n)[0] for part in parts]
        errors = [
            _jackknife([_vertex(part.lags, part.curve(band), n)[0] for band in bands])
            for part in parts
        ]
        drift, drift_error = _slope(at, np.array(own), np.array(errors))
    return _Fine(lag, float(at.mean()), error, drift, drift_error, peak, width)


def _vertex(lags: Curve, curve: Curve, n: int) -> tuple[float, float]:
    """Return where a parabola through the 2 n + 1 points around the top peaks, and its height."""
    filled = np.where(np.isfinite(curve), curve, -np.inf)
    top = int(np.argmax(filled))
    a, b = max(0, top - n), min(len(curve), top + n + 1)
    known = np.flatnonzero(np.isfinite(curve[a:b])) + a
    peak = float(filled[top])
    if len(known) < 3 or top in (known[0], known[-1]):
        return float(lags[top]), peak
    x = lags[known] - lags[top]
    square, slope, _ = np.polyfit(x, curve[known], 2)
    if square >= 0:
        return float(lags[top]), peak
    return float(lags[top] + np.clip(-slope / (2 * square), x[0], x[-1])), peak


def _slope(at: Curve, lags: Curve, errors: Curve) -> tuple[float | None, float | None]:
    """Return the slope of lags over samples, and its standard error; None: all at one time."""
    weights = 1 / (np.where(np.isfinite(errors), errors, 1.0) ** 2 + _LEAST_ERROR**2)
    centre = float((weights * at).sum() / weights.sum())
    spread = float((weights * (at - centre) ** 2).sum())
    if spread <= 0:
        return None, None
    mean = float((weights * lags).sum() / weights.sum())
    slope = float((weights * (at - centre) * (lags - mean)).sum() / spread)
    left = lags - mean - slope * (at - centre)
    # Where lags scatter more than their errors say, believe the scatter.
    scale = max(1.0, float((weights * left**2).sum()) / (len(at) - 2))
    return slope, math.sqrt(scale / spread)
