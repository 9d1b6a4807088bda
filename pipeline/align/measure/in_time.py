"""Are spikes and frames of one time and one scene? What all stages ask, in one place."""

from __future__ import annotations

import math

import numpy as np

from ..manifest import Verification
from .rolling import with_readout_seen
from .sliding import Reference, busiest_box, slide
from .suspects import name_suspect
from .verify import (
    ALIKE,
    MAX_FRAMES,
    FrameAt,
    match_sequence,
    read_luminance,
    search_range,
    spread,
)

NOTABLE = 0.05
"""Largest lag that fits, as a share of the exposure."""
BESIDE_AN_ESTIMATE = 0.1
"""The same where the registration was estimated from the frames: what moves looks displaced by a
lag, so a small lag may be in the registration."""

_LEAST_SIGNAL = 0.2
"""Share of the variance of spike rates that is not noise, below which likeness tells nothing."""


def look(
    frames: list[FrameAt], *, readout_known: bool = False, notable: float = NOTABLE
) -> Verification | None:
    """Return the lag of spikes behind frames, and what is wrong.

    Args:
        frames: exposures of one sequence in order of time, of one rate and length.
        readout_known: do not look for a rolling shutter.
        notable: largest lag that fits, as a share of the exposure.

    Returns:
        The lag; None: spikes are known of the exposures alone, which tells none. Even then, frames
        that are not like them are named.

    Raises:
        ImageError: an image can't be read.
    """
    measured, match = match_sequence(frames)
    if measured is None:
        return _unlike_where_they_are(frames)
    if match is not None and not readout_known:
        measured = with_readout_seen(frames, measured, match)
        if measured.readout is not None:
            return measured
    measured = name_suspect(frames, measured)
    if measured.problem == "unlike":
        return _if_spikes_are_enough(measured, frames)
    return _against_the_exposure(measured, frames[0].samples, notable)


def _unlike_where_they_are(frames: list[FrameAt]) -> Verification | None:
    """Compare blurred frames with the spikes of just their exposures; None: they are alike."""
    seen = [frame for frame in spread(frames, MAX_FRAMES) if frame.has("blur")]
    if not seen:
        return None
    samples, curves = seen[0].samples, []
    step = search_range(samples)[1]
    for frame in seen:
        shape = frame.spikes.geometry.shape
        image = read_luminance(frame.image("blur"), shape, frame.registration)
        box = busiest_box([image])
        if box is None:
            continue
        reference = Reference(image=image, spikes=frame.spikes, at=frame.at, widths=(samples,))
        (found,) = slide(reference, box, (samples // step,), (0.0, 0.0), step)
        curves.append(found.curve())
    known = [float(curve[0]) for curve in curves if np.isfinite(curve[0])]
    if not known or float(np.median(known)) >= ALIKE:
        return None
    peak = float(np.median(known))
    measured = Verification(
        lag_frames=0.0,
        lag_seconds=0.0,
        correlation=round(peak, 6),
        confident=False,
        by="blur",
        problem="unlike",
        warning=(
            f"spikes and blurred frames do not look alike (correlation {peak:.2f}): check "
            "geometry, row order and that they belong together"
        ),
    )
    measured = _if_spikes_are_enough(measured, frames)
    return measured if measured.problem == "unlike" else None


def _against_the_exposure(measured: Verification, samples: int, notable: float) -> Verification:
    """Return `measured`; a lag that is proved, and more than is `notable`, is what is wrong."""
    share = measured.lag_frames / samples
    if measured.problem is not None or abs(share) <= notable:
        return measured
    when = "late" if share > 0 else "early"
    warning = (
        f"the spikes come {when} by {abs(share):.1%} of the exposure (lag "
        f"{measured.lag_frames:+.1f} samples, {1e3 * measured.lag_seconds:+.3f} ms): "
        "let `align --estimate` correct the clock, or check fps, rate and the first sample's time"
    )
    return measured.model_copy(update={"problem": when, "warning": warning})


def _if_spikes_are_enough(measured: Verification, frames: list[FrameAt]) -> Verification:
    """Return `measured`, which is unlike; where spikes are few, that is not sure."""
    signal = _signal(frames)
    if signal >= _LEAST_SIGNAL and measured.correlation <= ALIKE * math.sqrt(signal):
        return measured
    warning = (
        f"the spikes are too few to tell whether they are of the frames' time (correlation "
        f"{measured.correlation:.2f} at best)"
    )
    return measured.model_copy(update={"problem": "unsure", "warning": warning})


def _signal(frames: list[FrameAt]) -> float:
    """Return the share of the variance of the exposures' spike rates that is not noise.

    Noise is what differs from pixel to pixel as no smooth picture does (Immerkaer, "Fast Noise
    Variance Estimation", CVIU 1996).
    """
    shares = []
    for frame in spread(frames, MAX_FRAMES):
        first, stop = frame.spikes.whole
        start, end = frame.clock.samples(frame.t0, frame.t1)
        if not first <= start < end <= stop:
            continue
        rate = frame.spikes.tfp(start, end).astype(np.float64)
        rough = np.diff(np.diff(rate, 2, axis=0), 2, axis=1)
        shares.append(1 - float((rough**2).mean()) / 36 / max(float(rate.var()), 1e-12))
    return float(np.median(shares)) if shares else 1.0
