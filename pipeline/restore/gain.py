"""The gain of a recording, for the record: as its files say, or as its blurred frames show it."""

from __future__ import annotations

import numpy as np

from ..methods.contract import gain_of
from ..sequences.recording import Recording, RecordingSequence


def known_gain(recording: Recording) -> float:
    """Return spikes a sample at unit luminance; not recorded: the median of what frames show.

    The first, middle and last exposure are read. Methods measure each exposure by itself, so
    theirs may be a little beside it.
    """
    if recording.settings.gain is not None:
        return recording.settings.gain
    last = len(recording.exposures) - 1
    shown = []
    for i in sorted({0, last // 2, last}):
        windows = RecordingSequence(recording.only([i]), 1)
        rate = windows.voxels(0, 1)[0, 0].astype(np.float32) / np.float32(windows.samples[0])
        shown.append(float(gain_of(windows, 0, rate)))
    return float(np.median(shown))
