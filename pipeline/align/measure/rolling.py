"""Does the lag grow from a frame's top to its bottom? Then its rows were exposed one after another.

The lag is measured in bands of rows alone. Only bands that show theirs surely count, and the slope
through their lags must be far above its error: what moves differently in each band moves the
bands' lags, too.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from ...clocks.durations import describe_duration
from ...frames.images import image_shape
from ...spikes.dat import SpikeFile
from ...spikes.rolling import delays_at
from ..manifest import Verification
from ..readout import as_rolled
from .lag import find_lag, slope
from .sliding import Plane, Reference, busiest_box
from .verify import FrameAt, comparable, judge, read_luminance, search_range, spread

_BANDS = 4
_FEWEST_BANDS = 3
_FRAMES = 4
"""Most frames of a sequence that are compared."""
_LONGEST = 0.04
"""Longest readout that is searched for, in seconds, where exposures are short."""
_SURE = 1 / 20
"""Largest standard error of a band's lag, in exposures."""
_LEAST = 1 / 20
"""Least difference of the lags of the first and the last row, in exposures."""
_CLEAR = 5.0
"""Slope, in its standard errors, from which it is clear."""
_UNSURE = (None, "unsure", "rival", "edge", "sharp apart", "unlike")
"""Problems of a whole frame's lag that a rolling shutter may have caused."""


@dataclass(frozen=True, slots=True)
class _BandLag:
    place: float
    """Middle of the band, from 0 in the frame's first row to 1 in its last one."""
    lag: float
    """Lag of the spikes in it, in samples."""
    error: float
    """Standard error of the lag."""


def with_readout_seen(frames: list[FrameAt], measured: Verification) -> Verification:
    """Return `measured`, with the readout of a rolling shutter if the bands' lags show one.

    Args:
        frames: exposures of one sequence, read as if all rows were exposed at once.
        measured: lag of the whole frames.
    """
    if measured.problem not in _UNSURE:
        return measured
    readout = estimate_readout(frames)
    if readout is None:
        return measured
    flag = f"--readout {describe_duration(float(f'{readout:.3g}')).replace(' ', '')}"
    warning = (
        f"from the first to the last row, the frames are {1e3 * readout:+.3g} ms later on the "
        f"spikes' clock, as under a rolling shutter: give {flag}, or, if one camera is turned "
        "against the other, --estimate-space"
    )
    update = {"problem": "rolling shutter", "warning": warning, "readout": round(readout, 9)}
    return measured.model_copy(update=update)


def estimate_readout(frames: list[FrameAt]) -> float | None:
    """Return the time from a frame's first row to its last one, in seconds; None: it isn't clear.

    Args:
        frames: exposures of one sequence, read as if all rows were exposed at once.
    """
    chosen = spread([frame for frame in frames if comparable(frame, "blur")], _FRAMES)
    if not chosen:
        return None
    first = chosen[0]
    height, shape = image_shape(first.image("blur"))[0], first.spikes.geometry.shape
    if first.registration is not None:
        rows = first.registration.frame_rows()
    else:
        rows = (np.arange(shape[0]) + 0.5) * height / shape[0] - 0.5
    places = rows / max(1, height - 1)
    images = [read_luminance(f.image("blur"), shape, f.registration) for f in chosen]
    edges = np.linspace(0, shape[0], _BANDS + 1).round().astype(int).tolist()
    bands = [(top, bottom) for top, bottom in itertools.pairwise(edges) if top < bottom]
    # Under a global shutter, which is the rule, the outer bands alone show that.
    outer = [_lag_of(chosen, images, band, places) for band in (bands[0], bands[-1])]
    sure = [lag for lag in outer if lag is not None]
    if len(sure) == 2 and not _differ(*sure):
        return None
    sure += filter(None, (_lag_of(chosen, images, band, places) for band in bands[1:-1]))
    samples, error = _growth(sure)
    if samples is None or error is None or abs(samples) < _CLEAR * error:
        return None
    if abs(samples) < max(2.0, _LEAST * first.samples):
        return None
    # The rows of a band were not exposed at once either, so its lag is only about right. Read with
    # this readout, they nearly were, and what is left of the slope says how far it was off.
    rate = first.clock.rate
    delays = delays_at(rows, samples / rate, rate, height)
    rolled = [replace(f, spikes=as_rolled(_unrolled(f), delays)) for f in chosen]
    lags = [_lag_of(rolled, images, band, places) for band in bands]
    left, _ = _growth([lag for lag in lags if lag is not None])
    return (samples + (left or 0.0)) / rate


def _unrolled(frame: FrameAt) -> SpikeFile:
    assert isinstance(frame.spikes, SpikeFile), "no readout is known yet"
    return frame.spikes


def _growth(bands: list[_BandLag]) -> tuple[float | None, float | None]:
    """Return by how many samples the lag grows from the first row to the last, and the error."""
    if len(bands) < _FEWEST_BANDS:
        return None, None
    place, lags, errors = np.array([(band.place, band.lag, band.error) for band in bands]).T
    return slope(place, lags, errors)


def _differ(a: _BandLag, b: _BandLag) -> bool:
    return abs(a.lag - b.lag) > max(1.0, 3 * math.hypot(a.error, b.error))


def _lag_of(
    frames: list[FrameAt], images: list[Plane], band: tuple[int, int], places: np.ndarray
) -> _BandLag | None:
    """Return the lag in a band of rows; None: it isn't sure."""
    top, bottom = band
    seen = []
    for image in images:
        alone = np.full_like(image, np.nan)
        alone[top:bottom] = image[top:bottom]
        seen.append(alone)
    box = busiest_box(seen)
    if box is None:
        return None
    samples, rate = frames[0].samples, frames[0].clock.rate
    references = [
        Reference(image=image, spikes=frame.spikes, at=frame.at, widths=(samples,))
        for image, frame in zip(seen, frames, strict=True)
    ]
    reach, step = search_range(samples)
    match = find_lag(references, max(reach, round(_LONGEST * rate)), step)
    found = judge(match, "blur", rate, samples)
    sure = found.problem in (None, "unsure") and found.error_frames is not None
    if match is None or not sure or match.error > _SURE * samples:
        return None
    return _BandLag(float(places[slice(*box.rows)].mean()), match.lag, match.error)
