"""Clock and place as given or as the frames show them, taken into a planned sequence."""

from __future__ import annotations

from pathlib import Path

from ..images import image_shape
from ..spikes.registration import Registration
from .corrected_clock import correct_clock, drop_outside, has_one_clock
from .layouts.contract import AlignmentError, shorten
from .manifest import Sequence, Space
from .measure import measure, measure_space
from .space import Model
from .verify import PROVED


def with_calibration(planned: Sequence, root: Path, given: Registration) -> Sequence:
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


def with_space_seen(
    planned: Sequence, root: Path, model: Model, former: Sequence | None, *, any_lag: bool
) -> tuple[Sequence, list[str]]:
    """Return the sequence with the place of spikes that its frames show, and warnings.

    Args:
        planned: the sequence.
        root: the data set's folder.
        model: what may lie between the two pictures.
        former: of a former run.
        any_lag: the clock may be wrong as well.
    """
    space = measure_space(planned, root, model, former, any_lag=any_lag)
    if space is None:
        return planned, [
            f"{planned.seq}: the frames do not show where the spikes lie in them, and both "
            "cameras are taken to see the same; give --calibration"
        ]
    if (space.confidence or 0.0) < PROVED:
        return planned, [
            f"{planned.seq}: where spikes lie in the frames shows only to +-"
            f"{space.error_pixels:.1f} frame pixels (correlation {space.correlation:.2f}), so "
            "both cameras are taken to see the same; give --calibration"
        ]
    return planned.model_copy(update={"space": space}), []


def with_clock_seen(
    planned: Sequence, root: Path, former: Sequence | None
) -> tuple[Sequence, list[str]]:
    """Return the sequence with the clock that its frames prove, and warnings.

    Raises:
        AlignmentError: with that clock no exposure lies inside the recording.
    """
    if not has_one_clock(planned):
        return planned, [
            f"{planned.seq}: each frame has its own recording, which ends with the exposure: a "
            "lag can be seen, but not corrected"
        ]
    found = measure(planned, root, former)
    if found is None or not found.confident:
        return planned.model_copy(update={"verification": found}), []
    kept, dropped = drop_outside(correct_clock(planned, found), root)
    if not kept.windows:
        raise AlignmentError(
            f"{planned.seq}: with the lag of {found.lag_frames:+.1f} samples that its frames "
            "show, no exposure lies inside the recording; check fps, rate and the first sample's "
            "time"
        )
    if not dropped:
        return kept, []
    return kept, [
        f"{planned.seq}: frames {shorten([str(n) for n in dropped])} are outside the recording "
        "once the clock is corrected; left out"
    ]
