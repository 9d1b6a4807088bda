"""The pixels of a sensor, from rates in the dark and before an even light.

A flat field shows a pixel's gain times the light that falls on it, and nothing in it tells one
from the other. What changes smoothly over the frame is taken for lamp and lens, unless the user
knows the light to be even; what differs from pixel to pixel is gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..spikes.sensor import Mask, Sensor
from .rates import Fired

LEAST_HOT = 0.005
"""Dark rate up to which no pixel is hot, in spikes a sample: it is subtracted."""
HOT_SPREADS, HOT_TIMES = 8, 4
"""Dark rate from which a pixel is hot: so many spreads above the median, and so many medians."""
MOST_DARK = 0.1
"""Dark rate above which a hot pixel is filled, in spikes a sample; up to it, it is corrected."""
DEAD, TOO_BRIGHT = 0.5, 2.0
"""Gains below which a pixel is dead, and above which it is hot."""
GAIN_SPREADS, LEAST_BRIGHT = 5, 1.25
"""Without a dark recording: spreads of the gains above the median from which a pixel is hot, at
least this gain and at most `TOO_BRIGHT`."""
SATURATED = 0.95
"""Spikes a sample from which a pixel may be saturated."""
FEWEST_SPIKES = 20
"""Fewest spikes of the median pixel in a flat field."""
PATTERN = 0.5
"""Correlation of neighbours' gains from which the flat field shows a scene, not pixels."""

_NORMAL = 1.4826  # standard deviation over median absolute deviation
_ROUNDS, _OUTLIER = 3, 4

Floats = npt.NDArray[np.float64]


class CalibrateError(SpikeDeblurError):
    """Recordings from which pixels can't be measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured, over good pixels; None: by a recording that was not given."""

    hot: int
    """Number of hot pixels."""
    filled: int
    """Number of pixels to fill from their neighbours: dead, or too hot to be corrected."""
    dead: int
    """Number of dead pixels."""
    dark_rate: float | None
    """Mean spikes a sample in the dark."""
    spread_before: float | None
    """Standard deviation of the gains, as a share of their mean."""
    spread_after: float | None
    """The same of one half of the flat field, corrected by the other half."""
    error: float | None
    """Standard error of the gains, by the difference of both halves."""
    uneven: float | None
    """Largest less least smooth light over the flat field, as a share of the mean."""
    told: float | None = None
    """Share of the good pixels whose gains the motion of a scene tells."""
    warnings: tuple[str, ...]


def measure(
    dark: Fired | None, flat: tuple[Fired, Fired] | None, *, even: bool = False
) -> tuple[Sensor, Figures]:
    """Return the pixels of a sensor.

    Args:
        dark: all of a recording without light.
        flat: both halves of a recording of an even surface.
        even: the light was even, so that smooth differences are the pixels' too.

    Raises:
        CalibrateError: neither recording; the flat field is no brighter than the dark, saturated
            or too dark; or half of the pixels are bad.
    """
    if dark is None and flat is None:
        raise CalibrateError("expected --dark, --flat or both, found neither")
    first = dark if dark is not None else flat[0]  # type: ignore[index]
    zeros = np.zeros(first.number.shape)
    warnings: list[str] = []
    rates = zeros if dark is None else dark.rate()
    hot = _hot(rates)
    gain, dead, light = np.ones_like(zeros), np.zeros(zeros.shape, np.bool_), None
    too_bright = TOO_BRIGHT
    if flat is not None:
        whole = flat[0].then(flat[1])
        response = whole.rate() - rates
        _require_flat(whole, rates, response, hot)
        light = _light(response, ~hot, even=even)
        gain = response / light
        level = np.median(gain[~hot])
        dead = (gain < DEAD * level) & ~hot
        too_bright = TOO_BRIGHT if dark is not None else _too_bright(gain / level)
        hot = hot | (gain > too_bright * level)
    good = ~(hot | dead)
    if 2 * good.sum() < good.size:
        raise CalibrateError(
            f"expected most pixels to be good, found {hot.sum()} hot and {dead.sum()} dead of "
            f"{good.size}; check --geometry, and that the dark was dark and the light even"
        )
    filled = dead | (hot & ((rates > MOST_DARK) | (gain > too_bright * np.median(gain))))
    spread = after = error = None
    if flat is not None and light is not None:
        gain = gain / gain[good].mean()
        halves = [_relative((half.rate() - rates) / light, good) for half in flat]
        spread = float(gain[good].std())
        after = float((halves[1][good] / halves[0][good]).std())
        error = float((halves[1] - halves[0])[good].std() / 2)
        warnings += _doubts(gain, good, error)
    if dark is None:
        warnings.append(
            "no --dark: dark rates are taken as 0, and only those hot pixels are found that fire "
            f"{too_bright:.2f} times as often in light as others"
        )
    elif float(np.median(rates)) > LEAST_HOT * HOT_TIMES:
        warnings.append(
            f"pixels fire {np.median(rates):.3g} times a sample in --dark, which is much; cover "
            "the lens if it was open"
        )
    if flat is None:
        warnings.append("no --flat: gains are taken as equal, and dead pixels stay unseen")
    sensor = Sensor(
        np.where(filled, 1, gain).astype(np.float32),
        rates.astype(np.float32),
        hot,
        dead,
        filled,
    )
    figures = Figures(
        hot=int(hot.sum()),
        filled=int(filled.sum()),
        dead=int(dead.sum()),
        dark_rate=None if dark is None else float(rates[good].mean()),
        spread_before=spread,
        spread_after=after,
        error=error,
        uneven=None if light is None or even else float((light.max() - light.min()) / light.mean()),
        warnings=tuple(warnings),
    )
    return sensor, figures


def _hot(rates: Floats) -> Mask:
    """Return the pixels that fire far more often in the dark than most."""
    median = float(np.median(rates))
    spread = _NORMAL * float(np.median(np.abs(rates - median)))
    return np.asarray(rates > max(LEAST_HOT, median + HOT_SPREADS * spread, HOT_TIMES * median))


def _too_bright(gain: Floats) -> float:
    """Return the gain (median 1) above which what a pixel fires is not by the light alone."""
    rest = np.log(np.maximum(gain, 0.1))
    spread = _NORMAL * float(np.median(np.abs(rest)))
    return min(max(float(np.exp(GAIN_SPREADS * spread)), LEAST_BRIGHT), TOO_BRIGHT)


def _require_flat(flat: Fired, dark: Floats, response: Floats, hot: Mask) -> None:
    """Refuse a flat field that tells no gains."""
    seen = response[~hot]
    rate, darkness = float(np.median(flat.rate()[~hot])), float(np.median(dark[~hot]))
    if np.median(seen) <= darkness:
        raise CalibrateError(
            f"expected a flat field brighter than the dark, found {rate:.3g} and {darkness:.3g} "
            "spikes a sample; were --dark and --flat exchanged?"
        )
    if rate * flat.samples < FEWEST_SPIKES:
        raise CalibrateError(
            f"expected at least {FEWEST_SPIKES} spikes of a pixel in --flat, found "
            f"{rate * flat.samples:.1f}; record longer, or with more light"
        )
    share = float((flat.rate()[~hot] > SATURATED).mean())
    if share > 0.01:
        raise CalibrateError(
            f"expected pixels of --flat below {SATURATED} spikes a sample, found {share:.0%} "
            "above, where they may be saturated; record with less light"
        )


def _light(response: Floats, good: Mask, *, even: bool) -> Floats:
    """Return the light on each pixel (H, W), in spikes a sample of the mean pixel.

    The logarithm of the light is a polynomial of degree 2 in both coordinates, which a lamp's
    distance and a lens's vignetting are to within a percent. Outliers, such as dust, are left out.
    """
    level = float(np.median(response[good]))
    if even:
        return np.full(response.shape, level)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in response.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # (H, W, 6)
    use = good & (response > DEAD * level) & (response < TOO_BRIGHT * level)
    values = np.log(np.where(use, response, 1))
    fit = np.zeros(response.shape)
    for _ in range(_ROUNDS):
        chosen, *_ = np.linalg.lstsq(terms[use], values[use], rcond=None)
        fit = terms @ chosen
        rest = values - fit
        spread = _NORMAL * float(np.median(np.abs(rest[use])))
        use = use & (np.abs(rest) <= _OUTLIER * spread + 1e-9)
    return np.asarray(np.exp(fit))


def _relative(gain: Floats, good: Mask) -> Floats:
    return np.asarray(gain / gain[good].mean())


def _doubts(gain: Floats, good: Mask, error: float) -> list[str]:
    """Return what may be wrong with a flat field, in words."""
    doubts = []
    rest = np.where(good, gain - 1, 0)
    likeness = neighbours_alike(rest)
    if likeness > PATTERN and float((rest * rest).mean()) > (3 * error) ** 2:
        doubts.append(
            f"gains of neighbours go together (correlation {likeness:.2f}), which pixels' own do "
            "not: --flat may show a scene or a lamp's edge; record an even surface, out of focus"
        )
    if error > 0.02:
        doubts.append(
            f"the gains are known to {error:.1%} only; record --flat longer, or with more light"
        )
    return doubts


def neighbours_alike(rest: Floats) -> float:
    """Return the correlation of neighbours in a plane (H, W) of mean 0, in rows or columns."""
    power = float((rest * rest).mean())
    pairs = [rest[1:] * rest[:-1], rest[:, 1:] * rest[:, :-1]]
    return min(float(pair.sum()) / max(pair.size, 1) for pair in pairs) / max(power, 1e-12)
