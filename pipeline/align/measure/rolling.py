"""Does the lag grow from a frame's top to its bottom? Then its rows were exposed one after another.

The search for the lag of whole frames knows the lag in each band of rows as well. A slope through
these far above its error shows a rolling shutter. The spikes are then read as that shutter sees
them, and compared once more: the slope that is left corrects the readout, because within a band,
too, rows are exposed one after another; and frames must fit better than without it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...clocks.durations import describe_duration
from ...frames.images import image_shape
from ...spikes.rolling import RolledSpikes, delays_at
from ..manifest import Verification
from .lag import Match, slope
from .sliding import Curve
from .verify import FrameAt, find_best

_FEWEST_BANDS = 4
_LONGEST = 0.04
"""Longest readout that is searched for, in seconds, where exposures are short."""
_LEAST = 1 / 20
"""Least difference of the lags of the first and the last row, in exposures."""
_CLEAR = 5.0
"""Slope, in its standard errors, from which it is clear."""
_PASSES = 4
"""Most times that frames are compared with a readout."""
_UNSURE = (None, "unsure", "rival", "edge", "sharp apart", "unlike")
"""Problems of a whole frame's lag that a rolling shutter may have caused."""


def with_readout_seen(frames: list[FrameAt], measured: Verification, match: Match) -> Verification:
    """Return `measured`, with the readout of a rolling shutter if the bands' lags show one.

    Args:
        frames: exposures of one sequence, read as if all rows were exposed at once.
        measured: lag of the whole frames.
        match: where the blurred frames fit best.
    """
    if measured.problem not in _UNSURE:
        return measured
    readout = estimate_readout(frames, match)
    if readout is None:
        return measured
    flag = f"--readout {describe_duration(float(f'{readout:.3g}')).replace(' ', '')}"
    warning = (
        f"from the first to the last row, the frames are {1e3 * readout:+.3g} ms later on the "
        f"spikes' clock, as under a rolling shutter: give {flag}, or, if one camera is turned "
        "against the other, `align --estimate-space`"
    )
    update = {"problem": "rolling shutter", "warning": warning, "readout": round(readout, 9)}
    return measured.model_copy(update=update)


def estimate_readout(frames: list[FrameAt], match: Match) -> float | None:
    """Return the time from a frame's first row to its last one, in seconds; None: it isn't clear.

    Args:
        frames: exposures of one sequence, read as if all rows were exposed at once.
        match: where their blurred frames fit best.
    """
    first = frames[0]
    height, rate = image_shape(first.image("blur"))[0], first.clock.rate
    if first.registration is not None:
        rows = first.registration.frame_rows()
    else:
        spike_rows = first.spikes.geometry.shape[0]
        rows = (np.arange(spike_rows) + 0.5) * height / spike_rows - 0.5
    places = rows / max(1, height - 1)
    least = max(2.0, _LEAST * first.samples)
    readout, rolled = 0.0, match
    for _ in range(_PASSES):
        samples, error = _slope_left(rolled, places, rate)
        readout += samples / rate
        if abs(readout) * rate < max(_CLEAR * error, least):
            return None
        if rolled is not match and abs(samples) < max(1.0, error):
            break
        delays = delays_at(rows, readout, rate, height)
        assert delays is not None, "a clear readout is longer than a sample"
        seen = [replace(frame, spikes=RolledSpikes(frame.spikes, delays)) for frame in frames]
        better = find_best(seen, "blur")
        if better is None:
            return None
        rolled = better
    return readout if rolled.peak > match.peak else None


def _slope_left(match: Match, places: Curve, rate: float) -> tuple[float, float]:
    """Return how far the last row's lag is above the first row's, in samples, and its error.

    Args:
        match: where frames fit best.
        places: where rows of spikes lie, from 0 in the frame's first row to 1 in its last one.
        rate: spike samples a second, in Hz.
    """
    lags, errors = match.band_lags(max(0.75 * match.width, _LONGEST * rate / 2))
    known = np.isfinite(errors)
    if known.sum() < _FEWEST_BANDS:
        return 0.0, np.inf
    middles = places[slice(*match.box.rows)].reshape(len(lags), -1).mean(axis=1)
    samples, error = slope(middles[known], lags[known], errors[known])
    return (0.0, np.inf) if samples is None or error is None else (samples, error)
