"""Clock and place as given or as the frames show them, taken into a planned sequence."""

from __future__ import annotations

from pathlib import Path

from ..frames.images import image_shape
from ..spikes.dat import SpikeFile
from ..spikes.registration import Registration
from .layouts.contract import AlignmentError
from .manifest import AlignedSequence, Space, Verification

_CLEAR_DRIFT = 5.0
"""Standard errors of the drift from which the rate is corrected too."""


def with_calibration(planned: AlignedSequence, root: Path, given: Registration) -> AlignedSequence:
    """Return the sequence with the place of spikes in frames that a calibration gives.

    Raises:
        AlignmentError: it is for other sizes.
    """
    found = planned.spike_geometry().shape, image_shape(root / planned.windows[0].blur)
    if (given.spike_shape, given.frame_shape) != found:
        raise AlignmentError(
            f"{planned.seq}: the calibration is for spikes of {given.spike_shape} and frames of "
            f"{given.frame_shape}, found {found[0]} and {found[1]}; give the one that was made "
            "for these sizes"
        )
    space = Space(matrix=given.matrix, frame_shape=given.frame_shape, by="calibration")
    return planned.model_copy(update={"space": space})


def has_one_clock(sequence: AlignedSequence) -> bool:
    """Whether the spikes are one recording; else a lag would move windows out of their files."""
    return len({(window.spikes, window.first) for window in sequence.windows}) == 1


def correct_clock(sequence: AlignedSequence, found: Verification) -> AlignedSequence:
    """Return the sequence with its clock corrected; all windows are kept.

    Sample s of the old clock lies at s + lag + drift (s - at) of the recording. A drift that is
    not clear is left out.
    """
    assert found.at_frame is not None
    drift = clear_drift(found)
    rate = sequence.rate * (1 + drift)
    shift = (found.lag_frames - drift * found.at_frame) / rate
    windows = tuple(
        window.model_copy(update={"first": window.first - shift}) for window in sequence.windows
    )
    applied = found.model_copy(update={"applied": True})
    return sequence.model_copy(update={"rate": rate, "windows": windows, "verification": applied})


def clear_drift(found: Verification) -> float:
    """Return by what share the true rate is above the known one; 0 where that is not clear."""
    if found.drift_ppm is None or found.drift_error_ppm is None:
        return 0.0
    clear = abs(found.drift_ppm) >= _CLEAR_DRIFT * found.drift_error_ppm
    return found.drift_ppm * 1e-6 if clear else 0.0


def drop_outside(sequence: AlignedSequence, root: Path) -> tuple[AlignedSequence, list[int]]:
    """Return the sequence without the windows that leave the recording, and their numbers."""
    n_frames = SpikeFile.open(root / sequence.windows[0].spikes, sequence.spike_geometry()).n_frames
    kept = set()
    for window in sequence.windows:
        start, stop = sequence.clock(window).samples(window.t0, window.t1)
        if 0 <= start < stop <= n_frames:
            kept.add(window.frame_index)
    dropped = [w.frame_index for w in sequence.windows if w.frame_index not in kept]
    return with_windows(sequence, kept), dropped


def with_windows(sequence: AlignedSequence, frames: set[int]) -> AlignedSequence:
    """Return the sequence with the windows of these frames only, and their files."""
    windows = tuple(window for window in sequence.windows if window.frame_index in frames)
    named = {p for w in windows for p in (w.spikes, w.blur, w.sharp) if p is not None}
    files = {path: record for path, record in sequence.files.items() if path in named}
    return sequence.model_copy(update={"windows": windows, "files": files})
