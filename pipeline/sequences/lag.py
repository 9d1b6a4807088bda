"""The lag of a sequence's spikes behind its sharp frames, from counts in bins.

A short TFP slides over the exposure, and the frame is where the TFP looks most like it (see
`align.measure.verify`), here in steps of a bin. A lag is measured for each window; a sequence has
the median of its windows' lags.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..spikes.camera import luminance
from .contract import WindowSequence

WIDTH = 0.12
"""Width of the sliding TFP, as a share of the exposure."""

REACH = 0.3
"""How far the TFP slides to each side, as a share of the exposure."""

NOTABLE = 0.05
"""Largest lag that is not worth a warning, as a share of the exposure."""

_MIN_DROP = 0.02
"""Least fall of the correlation on both sides of a peak that is believed; else nothing moves."""

Floats = npt.NDArray[np.float64]


def exposure_lag(sequence: WindowSequence) -> float | None:
    """Return the lag of the spikes as a share of the exposure, late > 0; None: not measurable.

    Args:
        sequence: a sequence with sharp frames and raw counts.
    """
    return median_lag(window_lag(sequence, i) for i in range(sequence.length))


def median_lag(lags: Iterable[float | None]) -> float | None:
    """Return the lag of a sequence from those of its windows; None: not measurable in any."""
    measured = [lag for lag in lags if lag is not None]
    return statistics.median(measured) if measured else None


def likeness_curve(sequence: WindowSequence, window: int) -> tuple[Floats, Floats]:
    """Return the likeness of a short TFP and the sharp frame, for each place of the TFP.

    Returns:
        Offsets of the TFP from the exposure's middle, as shares of the exposure, and its
        correlation there with the sharp frame, -1 to 1. Fewer than three tell nothing.
    """
    counts = sequence.voxels(window, window + 1)[0].astype(np.float32)  # (K, h, w)
    bins = len(counts)
    width, reach = max(1, round(WIDTH * bins)), int(REACH * bins)
    first = (bins - width) / 2
    starts = [s for s in range(bins - width + 1) if abs(s - first) <= reach]
    sharp = _fine(_reduced(luminance(sequence.sharp(window, window + 1)[0]), counts.shape[1:]))
    total = np.concatenate([np.zeros_like(counts[:1]), counts.cumsum(0)])
    curve = np.array([_likeness(_fine(total[s + width] - total[s]), sharp) for s in starts])
    return (np.array(starts) - first) / bins, curve


def window_lag(sequence: WindowSequence, window: int) -> float | None:
    """Return the lag of one window; see `exposure_lag`."""
    offsets, curve = likeness_curve(sequence, window)
    if len(curve) < 3:
        return None
    peak = int(curve.argmax())
    if not 0 < peak < len(curve) - 1 or curve[peak] - max(curve[0], curve[-1]) < _MIN_DROP:
        return None
    before, top, after = curve[peak - 1 : peak + 2]
    finer = 0.5 * (before - after) / (before - 2 * top + after)
    return float(offsets[peak] + finer * (offsets[1] - offsets[0]))


def _reduced(plane: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    image = Image.fromarray(np.asarray(plane, np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BOX))


def _fine(plane: npt.NDArray[np.float32]) -> Floats:
    """Return a plane without its coarse structure, which hardly moves."""
    small = _reduced(plane, (max(1, plane.shape[0] // 8), max(1, plane.shape[1] // 8)))
    coarse = Image.fromarray(small).resize(plane.shape[::-1], Image.Resampling.BICUBIC)
    fine = np.asarray(plane - np.asarray(coarse), np.float64)
    return fine - fine.mean()


def _likeness(a: Floats, b: Floats) -> float:
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0
