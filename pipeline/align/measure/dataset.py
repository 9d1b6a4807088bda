"""One data set's sequences measured: each against its own frames, then odd ones against others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ...frames.images import read_rgb
from ...frames.listing import shorten
from ...spikes.camera import luminance
from ...spikes.dat import SpikeFile
from ..correct_clock import correct_clock, drop_outside, has_one_clock, with_windows
from ..layouts.contract import AlignmentError
from ..manifest import AlignedSequence, Space, Verification, Window
from .registration import Model, Plane, Timed, find_lag_anywhere, register
from .suspects import name_owner, name_suspect
from .verify import LIKELY, PROVED, FrameAt, spread, verify_sequence

_LAGS = 16
"""To each side, of an eighth of the exposure each, at which place and lag are sought together."""
_PAIRS = 4
"""Exposures from which the registration is estimated."""
_MOST_OWNERS = 64
"""Sequences whose recordings are tried for one whose own does not fit."""

Map = Callable[
    [Callable[[AlignedSequence], AlignedSequence], list[AlignedSequence]], Iterable[AlignedSequence]
]


def measure(
    planned: AlignedSequence, root: Path, former: AlignedSequence | None
) -> Verification | None:
    """Return what the frames show of a sequence's spikes, from a former run if nothing changed."""
    known = None if former is None else _known(former, planned)
    if known is not None:
        return known
    frames = frames_of(planned, root)
    found = verify_sequence(frames)
    return None if found is None else name_suspect(frames, found)


def measure_space(
    planned: AlignedSequence,
    root: Path,
    model: Model,
    former: AlignedSequence | None,
    *,
    any_lag: bool,
) -> Space | None:
    """Return where the frames show the spikes to lie; None where they show nothing.

    Only exposures inside the recording count; a former run's result is taken if nothing changed.

    Args:
        planned: the sequence.
        root: the data set's folder.
        model: what may lie between the two pictures.
        former: of a former run.
        any_lag: the clock may be wrong as well.
    """
    if (
        former is not None
        and former.space is not None
        and former.space.by == model
        and former.plan() == planned.plan()
    ):
        return former.space
    windows = _Windows(planned, root)
    lag = 0
    if any_lag and windows.lags is not None:
        lag = find_lag_anywhere(windows.at, windows.lags) or 0
    pairs = [(tfp, blur) for tfp, blur, _ in windows.at(lag)]
    found = register(pairs, model) if pairs else None
    if found is None:
        return None
    return Space(
        matrix=found.registration.matrix,
        frame_shape=found.registration.frame_shape,
        by=model,
        correlation=round(found.correlation, 6),
        error_pixels=round(found.error, 4),
        confidence=found.confidence,
    )


class _Windows:
    """TFPs and blurred frames of a sequence at any lag."""

    def __init__(self, sequence: AlignedSequence, root: Path) -> None:
        geometry = sequence.spike_geometry()
        self._root = root
        self._files: dict[str, SpikeFile] = {}
        self._all: list[tuple[Window, int, int]] = []
        for window in sequence.windows:
            if window.spikes not in self._files:
                self._files[window.spikes] = SpikeFile.open(root / window.spikes, geometry)
            start, stop = sequence.clock(window).samples(window.t0, window.t1)
            self._all.append((window, start, stop))
        self._blur: dict[str, Plane] = {}

    @property
    def lags(self) -> list[int] | None:
        """Lags to try, in samples; None: recordings end with their exposures."""
        _, start, stop = self._all[0]
        samples = stop - start
        if any(self._files[w.spikes].n_frames < 1.5 * (b - a) for w, a, b in self._all):
            return None
        step = max(1, samples // 8)
        return [k * step for k in range(-_LAGS, _LAGS + 1)]

    def at(self, lag: int) -> list[Timed]:
        """Return up to _PAIRS exposures that lie inside the recording at this lag."""
        inside = [
            (window, start + lag, stop + lag)
            for window, start, stop in self._all
            if 0 <= start + lag < stop + lag <= self._files[window.spikes].n_frames
        ]
        pairs = []
        for window, start, stop in spread(inside, _PAIRS):
            file = self._files[window.spikes]
            tfp = file.tfp(start, stop)
            # In one sample the TFP loses the first of its samples and gains the next one.
            unit = max(1, (stop - start) // 16)
            a, b = max(0, start - unit), min(file.n_frames, stop + unit)
            gained = file.tfp(b - unit, b) - file.tfp(a, a + unit)
            pairs.append((tfp, self._frame(window.blur), gained / np.float32(stop - start)))
        return pairs

    def _frame(self, name: str) -> Plane:
        if name not in self._blur:
            self._blur[name] = luminance(read_rgb(self._root / name))
        return self._blur[name]


def find_owners(sequences: list[AlignedSequence], root: Path, each: Map) -> list[AlignedSequence]:
    """Return the sequences; where another's spikes fit the frames, its name is in the warning.

    Args:
        sequences: all of the data set, measured.
        root: the data set's folder.
        each: `map`, or a pool's.
    """
    odd = [s for s in sequences if _looks_odd(s.verification)]
    if not odd:
        return sequences
    names = {s.seq for s in odd}
    rest = [s for s in sequences if s.seq not in names]

    def find(sequence: AlignedSequence) -> AlignedSequence:
        found = sequence.verification
        if found is None or sequence.seq not in names:
            return sequence
        # Exchanged files leave at least two sequences odd, so those are tried first.
        others = [s for s in (*odd, *rest) if s.seq != sequence.seq][:_MOST_OWNERS]
        named = name_owner(
            frames_of(sequence, root), found, ((s.seq, frames_of(s, root)) for s in others)
        )
        return sequence.model_copy(update={"verification": named})

    return list(each(find, sequences))


def _looks_odd(found: Verification | None) -> bool:
    return (
        found is not None
        and found.correlation < LIKELY
        and (found.confident or found.problem in ("unlike", "edge", "still", "rival", "unsure"))
    )


def _known(former: AlignedSequence, planned: AlignedSequence) -> Verification | None:
    """Return what a former run measured of the same files and times."""
    # Of odd ones the other sequences decide too, and they may have changed.
    if former.verification is None or former.verification.correlation < LIKELY:
        return None
    known = former.verification.model_copy(update={"applied": False})
    expected = planned
    if former.verification.applied:
        kept = {window.frame_index for window in former.windows}
        expected = with_windows(correct_clock(planned, known), kept)
    return known if former.plan() == expected.plan() else None


def frames_of(sequence: AlignedSequence, root: Path) -> list[FrameAt]:
    """Return a sequence's exposures with their files, as its own clock has them."""
    geometry = sequence.spike_geometry()
    opened: dict[str, SpikeFile] = {}
    frames = []
    for window in sequence.windows:
        if window.spikes not in opened:
            opened[window.spikes] = SpikeFile.open(root / window.spikes, geometry)
        frames.append(
            FrameAt(
                blur=root / window.blur,
                sharp=root / window.sharp if window.sharp else None,
                spikes=opened[window.spikes],
                clock=sequence.clock(window),
                t0=window.t0,
                t1=window.t1,
                registration=sequence.registration(),
            )
        )
    return frames


def with_space_seen(
    planned: AlignedSequence,
    root: Path,
    model: Model,
    former: AlignedSequence | None,
    *,
    any_lag: bool,
) -> tuple[AlignedSequence, list[str]]:
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
