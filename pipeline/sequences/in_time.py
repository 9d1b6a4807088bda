"""Whether the spikes and the frames of one recording are of one time and one scene."""

from __future__ import annotations

import math
from collections import Counter

from ..align.manifest import Verification
from ..align.measure.in_time import NOTABLE, look
from ..align.measure.verify import FrameAt
from ..clocks.durations import describe_duration
from ..frames.images import image_shape
from ..spikes.rolling import delays_at, open_spikes, row_delays
from .recording import Recording, RecordingError

SKIPPED = ("flat", "still")
"""Problems of which nobody need hear: where nothing moves, no lag does harm."""


def require_one_scene(
    recording: Recording, *, force: bool
) -> tuple[Verification | None, list[str]]:
    """Look whether spikes and frames are of one time.

    Args:
        recording: the recording; exposures of its most common length are looked at.
        force: go on with spikes that are not of the frames' scene.

    Returns:
        What `look` returns, and warnings.

    Raises:
        RecordingError: spikes and frames are not alike at any lag.
        ImageError: a frame can't be read.
    """
    frames = _frames(recording)
    measured = look(frames, readout_known=recording.settings.readout is not None)
    if measured is None or measured.warning is None or measured.problem in SKIPPED:
        return measured, []
    error = measured.error_frames or math.inf
    at_most = (abs(measured.lag_frames) + 2 * error) / frames[0].samples
    if measured.problem == "unsure" and at_most <= 2 * NOTABLE:
        return measured, []
    if measured.problem in ("late", "early"):
        settings = recording.settings
        hundredths = round(100 * settings.rate * (settings.first - measured.lag_seconds))
        first = describe_duration(hundredths / (100 * settings.rate)).replace(" ", "")
        cause = measured.warning.partition(":")[0]
        return measured, [
            f"{cause}: give --first {first}, or let `align --estimate` correct the clock"
        ]
    if measured.is_unlike and not force:
        raise RecordingError(
            f"{recording.dat}: {measured.warning}; is it the recording of these frames? --force "
            "goes on all the same"
        )
    return measured, [measured.warning]


def _frames(recording: Recording) -> list[FrameAt]:
    """Return the exposures of the most common length."""
    settings = recording.settings
    clock, registration = settings.clock, settings.registration
    spans = [clock.samples(e.t0, e.t1) for e in recording.exposures]
    lengths = [stop - start for start, stop in spans]
    ((length, _),) = Counter(lengths).most_common(1)
    delays = None
    if settings.readout:
        height = image_shape(recording.exposures[0].path)[0]
        if registration is None:
            rows = settings.geometry.shape[0]
            delays = row_delays(settings.readout, settings.rate, rows, height)
        else:
            delays = delays_at(registration.frame_rows(), settings.readout, settings.rate, height)
    spikes = open_spikes(recording.dat, settings.geometry, None, delays, settings.cut)
    return [
        FrameAt(
            blur=exposure.path,
            sharp=None,
            spikes=spikes,
            clock=clock,
            t0=exposure.t0,
            t1=exposure.t1,
            registration=registration,
            cut=settings.cut,
        )
        for exposure, samples in zip(recording.exposures, lengths, strict=True)
        if samples == length
    ]
