"""A planned sequence with another clock or registration than its side files and sizes say."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..frames.images import image_shape
from ..spikes.clock import SpikeWindowError
from ..spikes.dat import SpikeFile
from ..spikes.registration import Registration
from .layouts.contract import AlignmentError
from .manifest import AlignedSequence, Space, Verification

_CLEAR_DRIFT = 5.0
"""Drift in its standard errors from which the rate is corrected too."""


def with_calibration(
    planned: AlignedSequence, root: Path, calibration: Registration
) -> AlignedSequence:
    """Return the sequence with the registration of a calibration file.

    Raises:
        AlignmentError: the calibration is for other sizes.
    """
    spikes, frames = planned.spike_geometry().shape, image_shape(root / planned.windows[0].blur)
    if (calibration.spike_shape, calibration.frame_shape) != (spikes, frames):
        raise AlignmentError(
            f"{planned.seq}: the calibration is for spikes of {calibration.spike_shape} and frames "
            f"of {calibration.frame_shape}, found {spikes} and {frames}; give the one that was "
            "made for these sizes"
        )
    space = Space(matrix=calibration.matrix, frame_shape=frames, by="calibration")
    return planned.model_copy(update={"space": space})


def has_one_clock(sequence: AlignedSequence) -> bool:
    """Whether the spikes are one recording; else a lag would move windows out of their files."""
    return len({(window.spikes, window.first) for window in sequence.windows}) == 1


def clear_drift(measured: Verification) -> float:
    """Return how far the true rate is above the stated one, as a share of it; 0: not clear."""
    ppm, error_ppm = measured.drift_ppm, measured.drift_error_ppm
    if ppm is None or error_ppm is None or abs(ppm) < _CLEAR_DRIFT * error_ppm:
        return 0.0
    return ppm * 1e-6


def correct_clock(sequence: AlignedSequence, measured: Verification) -> AlignedSequence:
    """Return the sequence with its clock corrected; all windows are kept.

    Sample s of the old clock is sample s + lag + drift (s - at) of the recording. A drift within
    _CLEAR_DRIFT standard errors counts as none.
    """
    assert measured.at_frame is not None
    drift = clear_drift(measured)
    rate = sequence.rate * (1 + drift)
    shift = (measured.lag_frames - drift * measured.at_frame) / rate
    windows = tuple(
        window.model_copy(update={"first": window.first - shift}) for window in sequence.windows
    )
    applied = measured.model_copy(update={"applied": True})
    return sequence.model_copy(update={"rate": rate, "windows": windows, "verification": applied})


def drop_outside(sequence: AlignedSequence, root: Path) -> tuple[AlignedSequence, list[int]]:
    """Return the sequence without the windows that leave the recording, and their numbers."""
    first = sequence.windows[0]
    path, geometry = root / first.spikes, sequence.spike_geometry()
    n_frames = SpikeFile.open(path, geometry, sequence.cut(first)).n_frames
    kept = set()
    for window in sequence.windows:
        cut = sequence.cut(window)
        if cut is not None and not cut.holds(window.t0, window.t1):
            continue
        with suppress(SpikeWindowError):
            sequence.clock(window).require_inside(window.t0, window.t1, n_frames, window.spikes)
            kept.add(window.frame_index)
    dropped = [w.frame_index for w in sequence.windows if w.frame_index not in kept]
    return with_windows(sequence, kept), dropped


def with_windows(sequence: AlignedSequence, frames: set[int]) -> AlignedSequence:
    """Return the sequence with the windows of these frames only, and their files."""
    windows = tuple(window for window in sequence.windows if window.frame_index in frames)
    named = {path for window in windows for path in window.paths}
    files = {path: record for path, record in sequence.files.items() if path in named}
    return sequence.model_copy(update={"windows": windows, "files": files})
