"""The lag of a sequence's spikes behind its images, its drift, and the errors of both.

The lag is where images and recordings correlate best. It is searched twice:

    coarse   all lags that the recordings allow, in steps    -> the main lobe and its best rival
    fine     single samples around the top of that lobe      -> the lag to a fraction of a sample

One lag is estimated from all images together. Its standard error is the larger of two, each by
leaving out one part after the other (the jackknife: Efron, Stein, "The jackknife estimate of
variance", Ann. Statist. 1981): bands of rows, and images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .sliding import Box, Curve, Likeness, Reference, busiest_box, slide

_FINE = 24
"""Samples to each side of the top to which a parabola is fitted. Measured on blurred frames, the
lag is off by 0.07 to 0.1 samples with 24, by 0.15 to 0.25 with 8 and by 0.3 to 0.5 with 48."""
_COARSE = 3
"""Steps of the coarse search to each side of its top to which a parabola is fitted."""
_LEAST_ERROR = 0.1
"""Least standard error of a lag, in samples, since a real curve is no parabola."""
_MOST_MOVES = 8
"""Most times that the fine search is centred anew."""
_ALTERNATIONS = 20
"""Iterations that solve for the common curve; see `combine`."""
_MIN_CONTRAST = 1e-3
"""Standard deviation of luminance up to which an image is flat."""
_MIN_IMAGES = 4
"""Fewest images that give a drift; with fewer it can't be told from chance."""


@dataclass(frozen=True, slots=True)
class Lobe:
    """The curve of correlation over the lag, its main lobe, and the best rival of that."""

    lags: Curve
    """Lags of `curve`, (L,), in samples."""
    curve: Curve
    """Correlation, (L,); NaN where no recording reaches."""
    low: int
    """Index of the lag where the lobe begins, half of `drop` below its top."""
    top: int
    """Index of the lag with the largest correlation."""
    high: int
    """Index of the lag where the lobe ends, half of `drop` below its top."""
    drop: float
    """Fall of the curve from its top, on the side where it falls less."""
    at_edge: bool
    """Whether the top is at the end of the lags that recordings allow."""
    rival: tuple[float, float] | None
    """Lag, in samples, and correlation of the best top outside the lobe; None: there is none."""
    lead: float
    """Difference of the correlations at top and rival, in its standard errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """The lag at which images and spikes correlate best."""

    lag: float
    """Lag of the spikes at sample `at`, in samples (late > 0)."""
    at: float
    """Mean of the samples at which the timeline puts the images."""
    error: float
    """Standard error of the lag, in samples."""
    drift: float | None
    """Growth of the lag, in samples a sample; None: too few images, or all at one time."""
    drift_error: float | None
    """Standard error of the drift."""
    peak: float
    """Correlation at the lag."""
    width: int
    """Length of the TFP that fits best, in samples."""
    lobe: Lobe
    """The curve that the coarse search found."""
    parts: list[Likeness]
    """Correlations of each image with its recording, of the coarse search."""
    box: Box
    """The pixels that were compared."""

    def band_lags(self, half: float) -> tuple[Curve, Curve]:
        """Return the lags in the bands of the box and their errors, in samples (G,).

        They are from the coarse search, within `half` of its top. Errors are relative: the less
        the correlation falls, the larger; infinite where a band shows nothing.
        """
        grid, step = self.lobe.lags, self.lobe.lags[1] - self.lobe.lags[0]
        near = np.abs(grid - grid[self.lobe.top]) <= half
        # An image whose search ends within the range would bend the common curve.
        curves = [_on_grid(part, grid, None) for part in self.parts]
        inside = [p for p, c in zip(self.parts, curves, strict=True) if np.isfinite(c[near]).all()]
        lags, drops = (np.zeros(len(self.parts[0].image_powers)) for _ in range(2))
        for band in range(len(lags)):
            parts = (part.of_band(band) for part in inside or self.parts)
            curve = combine([_on_grid(part, grid, None)[near] for part in parts])
            if curve is not None:
                lags[band], top = _vertex(grid[near], curve, _COARSE)
                drops[band] = top - float(np.nanmin(curve))
        with np.errstate(divide="ignore", invalid="ignore"):
            return lags, step / 4 * np.where(drops > 0, drops.max() / drops, np.inf)


def find_lag(references: list[Reference], reach: int, step: int) -> Match | None:
    """Find the lag at which images fit their recordings best.

    Args:
        references: images of one sequence and of one kind; at least one.
        reach: farthest lag to each side, in samples; recordings may allow less.
        step: step of the coarse search, in samples.

    Returns:
        The best match; None: images or spikes are flat, or all lags leave the recordings.
    """
    references = [r for r in references if float(np.nan_to_num(np.nanstd(r.image))) > _MIN_CONTRAST]
    box = busiest_box([r.image for r in references]) if references else None
    if box is None:
        return None
    widths = tuple(sorted({max(1, round(width / step)) for width in references[0].widths}))
    lags = (-float(reach // step * step), float(reach // step * step))
    coarse = [slide(r, box, widths, lags, step) for r in references]
    curves = [combine([part.curve() for part in parts]) for parts in zip(*coarse, strict=True)]
    peaks = {i: float(np.nanmax(curve)) for i, curve in enumerate(curves) if curve is not None}
    if not peaks:
        return None
    best = max(peaks, key=lambda i: peaks[i])
    chosen = [parts[best] for parts in coarse]
    grid = np.arange(len(chosen[0].lags)) * step + lags[0]
    whole = _together(chosen, grid)
    assert whole is not None
    lobe = _find_lobe(grid, whole, chosen)
    wanted, coarse_width = references[0].widths, widths[best] * step
    near = [width for width in wanted if coarse_width / 2.2 <= width <= coarse_width * 2.2]
    near = near or [min(wanted, key=lambda width: abs(width - coarse_width))]
    matches = [_refine(references, box, width, step, lobe, chosen) for width in near]
    return max(filter(None, matches), key=lambda match: match.peak, default=None)


def combine(curves: list[Curve]) -> Curve | None:
    """Return the common curve of several images (L,); None: no curve has a value.

    Images correlate differently well, so a plain mean would jump where the curve of one ends. The
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


def _find_lobe(lags: Curve, curve: Curve, parts: list[Likeness]) -> Lobe:
    known = np.flatnonzero(np.isfinite(curve))
    first, last = int(known[0]), int(known[-1])
    filled = np.where(np.isfinite(curve), curve, -np.inf)
    top = int(np.argmax(filled))
    peak = float(curve[top])
    left, right = curve[first : top + 1], curve[top : last + 1]
    drop = peak - max(float(np.nanmin(left)), float(np.nanmin(right)))
    below = np.flatnonzero(filled <= peak - drop / 2)
    low = int(below[below < top][-1]) if (below < top).any() else first
    high = int(below[below > top][0]) if (below > top).any() else last
    # On the flanks the curve is high because the peak is: a rival is a top of its own.
    before, after = (np.concatenate(([-np.inf], filled[:-1])), np.append(filled[1:], -np.inf))
    tops = (filled >= before) & (filled >= after) & np.isfinite(filled)
    tops[low : high + 1] = False
    rival, lead = None, math.inf
    if tops.any():
        i = int(np.argmax(np.where(tops, filled, -np.inf)))
        rival, lead = (float(lags[i]), float(curve[i])), _lead(parts, lags, top, i)
    return Lobe(lags, curve, low, top, high, drop, top in (first, last), rival, lead)


def _together(parts: list[Likeness], grid: Curve, without: int | None = None) -> Curve | None:
    """Return the common curve at the lags `grid`; None: no curve has a value.

    Args:
        parts: correlations of each image, at lags that may lie between those of the grid.
        grid: lags, equally spaced, in samples.
        without: band of rows to leave out.
    """
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


def _lead(parts: list[Likeness], grid: Curve, top: int, rival: int) -> float:
    """Return the peak's lead over its rival, in standard errors by the jackknife over bands."""

    def lead_of(curve: Curve | None) -> list[float]:
        return [] if curve is None else [float(curve[top] - curve[rival])]

    (lead,) = lead_of(_together(parts, grid))
    bands = range(len(parts[0].image_powers))
    error = _jackknife([x for band in bands for x in lead_of(_together(parts, grid, band))])
    return lead / error if error > 0 else math.inf if lead > 0 else 0.0


def _jackknife(estimates: list[float]) -> float:
    """Return the standard error of an estimate from its values with each part left out in turn."""
    n = len(estimates)
    if n < 2:
        return math.nan
    values = np.array(estimates)
    return float(np.sqrt((n - 1) / n * np.square(values - values.mean()).sum()))


def _refine(
    references: list[Reference],
    box: Box,
    width: int,
    step: int,
    lobe: Lobe,
    coarse: list[Likeness],
) -> Match | None:
    """Return the match to a fraction of a sample, from single samples around the lobe's top.

    None: no image has a correlation there.
    """
    about = float(lobe.lags[lobe.top])
    half_width = (lobe.high - lobe.low) * step / 2
    half = max(2, min(round(half_width / 4), _FINE * max(1, step // 8)))
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
        # Where images end, the fine top may lie beside the coarse one: then search there.
        if min(lag - grid[0], grid[-1] - lag) >= half / 2 or not inside:
            break
        about = lag
    at = np.array([references[i].at for i in used])

    def lag_of(some: list[Likeness], band: int | None = None) -> list[float]:
        curve = _together(some, grid, band)
        return [] if curve is None else [_vertex(grid, curve, n)[0]]

    bands = range(len(parts[0].image_powers))
    by_bands = _jackknife([x for band in bands for x in lag_of(parts, band)])
    by_images = _jackknife(
        [x for i in range(len(parts)) for x in lag_of(parts[:i] + parts[i + 1 :])]
    )
    known = [error for error in (by_bands, by_images) if math.isfinite(error)]
    error = math.hypot(max(known, default=math.inf), _LEAST_ERROR)
    drift = drift_error = None
    if len(parts) >= _MIN_IMAGES:
        lags_alone = [_vertex(part.lags, part.curve(), n)[0] for part in parts]
        errors = [
            _jackknife([_vertex(part.lags, part.curve(band), n)[0] for band in bands])
            for part in parts
        ]
        drift, drift_error = slope(at, np.array(lags_alone), np.array(errors))
    return Match(
        lag=lag,
        at=float(at.mean()),
        error=error,
        drift=drift,
        drift_error=drift_error,
        peak=peak,
        width=width,
        lobe=lobe,
        parts=coarse,
        box=box,
    )


def _vertex(lags: Curve, curve: Curve, n: int) -> tuple[float, float]:
    """Return the peak of a parabola through 2 n + 1 points around the top, and the top itself."""
    filled = np.where(np.isfinite(curve), curve, -np.inf)
    top = int(np.argmax(filled))
    a, b = max(0, top - n), min(len(curve), top + n + 1)
    known = np.flatnonzero(np.isfinite(curve[a:b])) + a
    peak = float(filled[top])
    if len(known) < 3 or top in (known[0], known[-1]):
        return float(lags[top]), peak
    x = lags[known] - lags[top]
    square, linear, _ = np.polyfit(x, curve[known], 2)
    if square >= 0:
        return float(lags[top]), peak
    return float(lags[top] + np.clip(-linear / (2 * square), x[0], x[-1])), peak


def slope(at: Curve, lags: Curve, errors: Curve) -> tuple[float | None, float | None]:
    """Return the slope of three lags or more, and its standard error; None: all are at one time."""
    weights = 1 / (np.where(np.isfinite(errors), errors, 1.0) ** 2 + _LEAST_ERROR**2)
    centre = float((weights * at).sum() / weights.sum())
    spread = float((weights * (at - centre) ** 2).sum())
    if spread <= 0:
        return None, None
    mean = float((weights * lags).sum() / weights.sum())
    growth = float((weights * (at - centre) * (lags - mean)).sum() / spread)
    left = lags - mean - growth * (at - centre)
    # Where lags scatter more than their errors allow, the scatter counts.
    scale = max(1.0, float((weights * left**2).sum()) / (len(at) - 2))
    return growth, math.sqrt(scale / spread)
