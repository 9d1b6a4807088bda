"""The gain by which a recording was restored, for the record."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..methods.contract import gain_of
from ..sequences.recording import Recording, RecordingSequence

if TYPE_CHECKING:
    from ..methods.network import ModelMethod


class GainTaken(NamedTuple):
    """The gain that a method went by."""

    value: float | None
    """Spikes a sample at unit luminance; None: the method went by none."""
    measured: bool
    """Whether the blurred frames showed it."""


def gain_taken(
    recording: Recording,
    method: str,
    model: ModelMethod | None,
    shown: Iterable[float],
) -> GainTaken:
    """Return the gain by which frames were restored.

    Args:
        recording: the recording.
        method: name of the method.
        model: the network, if it is one.
        shown: gains that the method measured itself; NaN: no light.
    """
    if method == "blur" or (model is not None and not model.needs_gain):
        return GainTaken(None, measured=False)
    if method == "path":
        known = [gain for gain in shown if math.isfinite(gain)]
        return GainTaken(float(np.median(known)) if known else None, measured=bool(known))
    if recording.settings.gain is not None:
        return GainTaken(recording.settings.gain, measured=False)
    return GainTaken(_shown_gain(recording), measured=True)


def _shown_gain(recording: Recording) -> float:
    """Return the median of the gains that the first, middle and last exposure show.

    Methods measure each exposure by itself, so theirs may be a little beside it.
    """
    last = len(recording.exposures) - 1
    shown = []
    for i in sorted({0, last // 2, last}):
        windows = RecordingSequence(recording.only([i]), 1)
        rate = windows.voxels(0, 1)[0, 0].astype(np.float32) / np.float32(windows.samples[0])
        shown.append(float(gain_of(windows, 0, rate)))
    return float(np.median(shown))
