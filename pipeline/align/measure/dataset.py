"""A data set's sequences measured: each against its own frames, then odd ones against others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from ...frames.images import read_frame
from ...frames.listing import shorten
from ...spikes.camera import luminance
from ...spikes.rolling import open_spikes
from ..correct_clock import correct_clock, drop_outside, has_one_clock, with_windows
from ..layouts.contract import AlignmentError
from ..manifest import AlignedSequence, Space, Verification
from ..readout import delays_of
from .in_time import BESIDE_AN_ESTIMATE, NOTABLE, look
from .registration import Model, Plane, Timed, find_lag_anywhere, register
from .suspects import name_owner
from .verify import LIKELY, PROVED, FrameAt, spread

_LAGS = 16
"""Lags to each side, an eighth of the exposure apart, at which a registration is tried."""
_PAIRS = 4
"""Exposures from which the registration is estimated."""
_MOST_OWNERS = 64
"""Other sequences whose recordings are tried for frames that do not fit their own."""

Map = Callable[
    [Callable[[AlignedSequence], AlignedSequence], list[AlignedSequence]], Iterable[AlignedSequence]
]


def frames_of(sequence: AlignedSequence, root: Path) -> list[FrameAt]:
    """Return a sequence's exposures with their files, at the times of its own clock."""
    geometry = sequence.spike_geometry()
    registration = sequence.registration()
    delays = delays_of(sequence, root)
    open_once = cache(lambda name, cut: open_spikes(root / name, geometry, None, delays, cut))
    return [
        FrameAt(
            blur=root / window.blur,
            sharp=root / window.sharp if window.sharp else None,
            spikes=open_once(window.spikes, sequence.cut(window)),
            clock=sequence.clock(window),
            t0=window.t0,
            t1=window.t1,
            registration=registration,
            cut=sequence.cut(window),
        )
        for window in sequence.windows
    ]


def measure(
    planned: AlignedSequence, root: Path, former: AlignedSequence | None
) -> Verification | None:
    """Return a sequence's lag and what is wrong; from the former run if nothing changed."""
    known = None if former is None else _known(former, planned)
    if known is not None:
        return known
    estimated = planned.space is not None and planned.space.by != "calibration"
    return look(
        frames_of(planned, root),
        readout_known=planned.readout is not None,
        notable=BESIDE_AN_ESTIMATE if estimated else NOTABLE,
    )


def _known(former: AlignedSequence, planned: AlignedSequence) -> Verification | None:
    """Return what a former run measured of the same files and times."""
    # What is said of an odd sequence depends on the others too, and they may have changed.
    if former.verification is None or former.verification.correlation < LIKELY:
        return None
    known = former.verification.model_copy(update={"applied": False})
    expected = planned
    if former.verification.applied:
        kept = {window.frame_index for window in former.windows}
        expected = with_windows(correct_clock(planned, known), kept)
    return known if former.plan() == expected.plan() else None


def with_clock_seen(
    planned: AlignedSequence, root: Path, former: AlignedSequence | None
) -> tuple[AlignedSequence, list[str]]:
    """Return the sequence with the clock that its frames prove, and warnings.

    Raises:
        AlignmentError: with that clock no exposure lies inside the recording.
    """
    if not has_one_clock(planned):
        return planned, [
            f"{planned.seq}: each frame has its own recording, which ends with the exposure: a "
            "lag can be seen, but not corrected"
        ]
    measured = measure(planned, root, former)
    if measured is None or not measured.confident:
        return planned.model_copy(update={"verification": measured}), []
    kept, dropped = drop_outside(correct_clock(planned, measured), root)
    if not kept.windows:
        raise AlignmentError(
            f"{planned.seq}: with the lag of {measured.lag_frames:+.1f} samples that its frames "
            "show, no exposure lies inside the recording; check fps, rate and the first sample's "
            "time"
        )
    if not dropped:
        return kept, []
    return kept, [
        f"{planned.seq}: frames {shorten([str(n) for n in dropped])} are outside the recording "
        "once the clock is corrected; left out"
    ]


def with_space_seen(
    planned: AlignedSequence,
    root: Path,
    model: Model,
    former: AlignedSequence | None,
    *,
    any_lag: bool,
) -> tuple[AlignedSequence, list[str]]:
    """Return the sequence with the registration that its frames show, and warnings.

    Args:
        planned: the sequence.
        root: the data set's folder.
        model: what may lie between the two pictures.
        former: the sequence in a former run, whose registration is taken if nothing changed.
        any_lag: search the lag as well, since the clock may be wrong.
    """
    space = None if former is None else former.space
    if space is None or space.by != model or former is None or former.plan() != planned.plan():
        space = measure_space(planned, root, model, any_lag=any_lag)
    if space is not None and (space.confidence or 0.0) >= PROVED:
        return planned.model_copy(update={"space": space}), []
    seen = "do not show where the spikes lie in them"
    if space is not None:
        seen = (
            f"show only to +-{space.error_pixels:.1f} frame pixels where the spikes lie in them "
            f"(correlation {space.correlation:.2f})"
        )
    return planned, [
        f"{planned.seq}: the frames {seen}, so both cameras are taken to see the same; give "
        "--calibration"
    ]


def measure_space(
    planned: AlignedSequence, root: Path, model: Model, *, any_lag: bool
) -> Space | None:
    """Return the registration of a sequence's spikes, from exposures inside the recording.

    Args:
        planned: the sequence.
        root: the data set's folder.
        model: what may lie between the two pictures.
        any_lag: search the lag as well, since the clock may be wrong.

    Returns:
        The registration; None where the frames show nothing.
    """
    frames = frames_of(planned, root)
    read_luminance = cache(lambda path: luminance(read_frame(path)))

    def pairs_at(lag: int) -> list[Timed]:
        """Return up to _PAIRS exposures that lie inside the recording at this lag."""
        inside = [
            (frame, start + lag, stop + lag)
            for frame in frames
            for start, stop in [frame.clock.samples(frame.t0, frame.t1)]
            for first, end in [frame.spikes.whole]
            if first <= start + lag < stop + lag <= end
        ]
        return [
            _timed(frame, start, stop, read_luminance(frame.blur))
            for frame, start, stop in spread(inside, _PAIRS)
        ]

    lag = 0
    if any_lag and all(frame.spikes.n_frames >= 1.5 * frame.samples for frame in frames):
        step = max(1, frames[0].samples // 8)
        lags = [k * step for k in range(-_LAGS, _LAGS + 1)]
        lag = find_lag_anywhere(pairs_at, lags) or 0
    pairs = [(tfp, blur) for tfp, blur, _ in pairs_at(lag)]
    registered = register(pairs, model) if pairs else None
    if registered is None:
        return None
    return Space(
        matrix=registered.registration.matrix,
        frame_shape=registered.registration.frame_shape,
        by=model,
        correlation=round(registered.correlation, 6),
        error_pixels=round(registered.error, 4),
        confidence=registered.confidence,
    )


def _timed(frame: FrameAt, start: int, stop: int, blur: Plane) -> Timed:
    """Return the TFP of samples [start, stop), the blurred frame, and the TFP's change a sample."""
    file = frame.spikes
    # In one sample the TFP loses the first of its samples and gains the next one.
    unit = max(1, (stop - start) // 16)
    first, end = file.whole
    before, after = max(first, start - unit), min(end, stop + unit)
    gained = file.tfp(after - unit, after) - file.tfp(before, before + unit)
    return file.tfp(start, stop), blur, gained / np.float32(stop - start)


def find_owners(sequences: list[AlignedSequence], root: Path, each: Map) -> list[AlignedSequence]:
    """Return the sequences; where another's spikes fit the frames, its name is in the warning.

    Args:
        sequences: all of the data set, measured.
        root: the data set's folder.
        each: `map`, or a pool's.
    """
    odd = [sequence for sequence in sequences if _looks_odd(sequence.verification)]
    if not odd:
        return sequences
    names = {sequence.seq for sequence in odd}
    rest = [sequence for sequence in sequences if sequence.seq not in names]

    def find(sequence: AlignedSequence) -> AlignedSequence:
        measured = sequence.verification
        if measured is None or sequence.seq not in names:
            return sequence
        # Exchanged files leave at least two sequences odd, so those are tried first.
        others = [s for s in (*odd, *rest) if s.seq != sequence.seq][:_MOST_OWNERS]
        named = name_owner(
            frames_of(sequence, root), measured, ((s.seq, frames_of(s, root)) for s in others)
        )
        return sequence.model_copy(update={"verification": named})

    return list(each(find, sequences))


def _looks_odd(measured: Verification | None) -> bool:
    if measured is None or measured.correlation >= LIKELY or measured.readout is not None:
        return False
    unclear = ("unlike", "edge", "still", "rival", "unsure")
    return measured.confident or measured.problem in unclear
