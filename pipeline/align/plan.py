"""One sequence's entry in the manifest: planned from names, sizes and times, then counted."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ..clocks.camera import CameraClock
from ..clocks.exposures import Exposures, exposure_length, instant_offsets
from ..clocks.names import describe_gaps, gaps_between
from ..frames.listing import shorten
from ..host.files import all_inside, links_out
from ..host.pieces import HashForm, hash_file
from ..spikes.between import Cut
from ..spikes.clock import SpikeWindowError
from ..spikes.geometry import SpikeGeometry
from ..spikes.rolling import open_spikes
from ..spikes.settings import SpikeSettings
from .layouts import AlignmentError, FoundSequence
from .log import require_seq
from .manifest import AlignedSequence, FileRecord, Window
from .named_sensor import name_sensor
from .part import part_of
from .readout import delays_of


def with_clock(
    root: Path, sequences: list[FoundSequence], camera: CameraClock | None
) -> list[FoundSequence]:
    """Return sequences whose exposures are known, by the camera's clock that the user gives.

    Args:
        root: the data set's folder, for messages.
        sequences: those of the data set.
        camera: the user's clock; None: as the layout says.

    Raises:
        AlignmentError: neither says how long frames were exposed, or one table for several.
        TimelineError: times that do not fit a sequence.
    """
    if camera is None:
        unknown = next((s for s in sequences if s.exposures is None and s.exposure is None), None)
        if unknown is not None:
            raise AlignmentError(
                f"{unknown.windows[0].spikes}: its folders don't say how long a frame was exposed; "
                "give --frame-rate 30 and --shutter 16ms, or, for averages of sharp frames, "
                "--exposure and --fps"
            )
        return sequences
    if camera.times is not None and len(sequences) > 1:
        raise AlignmentError(
            f"{camera.times}: expected one sequence in {root}, for which its times are, found "
            f"{len(sequences)}; name a table for each by `camera: {{times: ...}}` of a layout file"
        )
    timed = []
    for sequence in sequences:
        exposures = camera.exposures([window.blur.name for window in sequence.windows])
        fps = camera.frame_rate or exposures.frame_rate
        timed.append(replace(sequence, exposures=exposures, exposure=None, fps=fps))
    return timed


def incomplete(sequence: FoundSequence) -> list[str]:
    """Return a sentence about frames whose numbers leave a gap, and one about those without sharp.

    Args:
        sequence: the sequence's files.
    """
    sentences = []
    names = [window.blur.name for window in sequence.windows]
    gaps = gaps_between(names, [window.frame_index for window in sequence.windows])
    if gaps:
        sentences.append(f"{sequence.windows[0].blur.parent}: {describe_gaps(gaps)}")
    without = [window.blur.name for window in sequence.windows if window.sharp is None]
    if 0 < len(without) < len(sequence.windows):
        sentences.append(
            f"{sequence.windows[0].blur.parent}: no sharp frames for {shorten(without)}, but for "
            "the others"
        )
    return sentences


def common_fps(root: Path, sequences: list[FoundSequence], fps: float | None) -> float:
    """Return the sharp frames a second, in Hz, of all sequences.

    Args:
        root: the data set's folder, for messages.
        sequences: those of the data set.
        fps: what the user says; None: the layout's own.

    Raises:
        AlignmentError: neither says it, both do, or sequences differ.
    """
    if fps is not None:
        timed = next((sequence.seq for sequence in sequences if sequence.exposures), None)
        if timed is not None:
            raise AlignmentError(
                f"{root}: the camera's clock states the times of {timed}; leave --fps out, which "
                "is the rate of averaged sharp frames"
            )
        return fps
    if all(sequence.exposures for sequence in sequences):
        # Each recording has times of its own; their mean rates hardly ever agree to the last digit.
        return statistics.median_low([sequence.fps or 0.0 for sequence in sequences])
    rates = {sequence.fps: sequence.seq for sequence in reversed(sequences)}
    if None in rates:
        raise AlignmentError(
            f"{root}: this layout has no frame rate of its own; give --fps, sharp frames a second"
        )
    if len(rates) > 1:
        named = ", ".join(f"{rate:g} ({seq})" for rate, seq in rates.items() if rate)
        raise AlignmentError(
            f"{root}: sequences differ in frames a second by their names: {named}; align them "
            "from separate folders"
        )
    return next(rate for rate in rates if rate is not None)


def plan_sequence(
    sequence: FoundSequence,
    root: Path,
    settings: SpikeSettings,
    fps: float,
    instants: int | None = None,
) -> AlignedSequence:
    """Return a sequence with times and file records, but without counts and hashes.

    Args:
        sequence: the sequence's files.
        root: the data set's folder, which holds them.
        settings: what is known of the spikes.
        fps: sharp frames a second, in Hz.
        instants: number of sharp frames of each exposure that the later stages keep; None: only
            the one in its middle.

    Links that lead out of the folder are the user's own, and recorded.

    Raises:
        AlignmentError: a sharp frame of these is not there.
        SensorError: the sensor's file is not there, or another camera's.
    """
    require_seq(sequence.seq)
    places: tuple[float, ...] = ()
    sharps: list[tuple[Path, ...]] = [()] * len(sequence.windows)
    if instants is not None:
        places, sharps = _sharp_instants(sequence, fps, settings.rate, instants)
    prefix = "" if root == Path() else f"{root}/"
    lead = sequence.lead_samples / settings.rate
    exposures = sequence.exposures or Exposures.averaged(
        [window.centre for window in sequence.windows], sequence.exposure or 0, fps
    )
    names = [str(window.blur) for window in sequence.windows]
    times = exposures.windows(settings.clock, names)
    windows = []
    for window, (t0, t1), beside in zip(sequence.windows, times, sharps, strict=True):
        windows.append(
            Window(
                frame_index=window.frame_index,
                t0=t0,
                t1=t1,
                spike_count=0,
                spikes=str(window.spikes).removeprefix(prefix),
                first=t0 - lead if sequence.own_files else settings.first,
                blur=str(window.blur).removeprefix(prefix),
                sharp=str(window.sharp).removeprefix(prefix) if window.sharp else None,
                instants=tuple(str(path).removeprefix(prefix) for path in beside),
            )
        )
    named = sorted({path for window in windows for path in window.paths})
    links = links_out(root, named)
    paths = all_inside(root, named, sequence.seq, links)
    return AlignedSequence(
        seq=sequence.seq,
        scene=sequence.scene,
        blur_kind=sequence.blur_kind,
        geometry=settings.geometry.describe(),
        rate=settings.rate,
        gain=settings.gain,
        readout=settings.readout,
        windows=tuple(windows),
        instants=places,
        sensor=name_sensor(settings, root),
        files={name: _record(path) for name, path in paths.items()},
        links=links,
    )


def _sharp_instants(
    sequence: FoundSequence, fps: float, rate: float, instants: int
) -> tuple[tuple[float, ...], list[tuple[Path, ...]]]:
    """Return when sharp frames are, in exposures from the middle, and those of each window."""
    first = sequence.windows[0]
    if sequence.exposure is None or sequence.exposures is not None:
        raise AlignmentError(
            f"{first.blur}: expected an average of sharp frames, of which --instants takes some, "
            "found a frame of a camera; leave --instants out"
        )
    offsets = instant_offsets(instants, sequence.exposure, fps, rate)
    found = []
    for window in sequence.windows:
        missing = [i for i in offsets if window.centre + i not in window.sharps]
        if missing:
            raise AlignmentError(
                f"{window.blur}: expected sharp frames {window.centre + offsets[0]} to "
                f"{window.centre + offsets[-1]} for --instants {instants}, found none of number "
                f"{window.centre + missing[0]}; leave --instants out, or put them there "
                f"(`simulate --instants {instants}` does)"
            )
        found.append(tuple(window.sharps[window.centre + i] for i in offsets))
    length = fps * exposure_length(sequence.exposure, fps, rate)
    return tuple(i / length for i in offsets), found


def _record(path: str) -> FileRecord:
    seen = os.stat(path)  # noqa: PTH116  # a Path costs more than looking
    return FileRecord(size=seen.st_size, mtime_ns=seen.st_mtime_ns)


def count_spikes(sequence: FoundSequence, planned: AlignedSequence, root: Path) -> AlignedSequence:
    """Return a planned sequence with its spike counts, and the hashes of the files they are from.

    Raises:
        AlignmentError: an exposure leaves the recording, a file has another length than its
            exposure, or changed while it was read.
    """
    geometry = planned.spike_geometry()
    files = dict(planned.files)
    delays = delays_of(planned, root)
    open_once = lru_cache(1)(lambda path, cut: open_spikes(path, geometry, None, delays, cut))
    windows = []
    for window in planned.windows:
        path = root / window.spikes
        cut = planned.cut(window)
        spikes = open_once(path, cut)
        clock = planned.clock(window)
        if sequence.own_files:
            stop = clock.samples(window.t0, window.t1)[1]
            allowed = [stop + tail for tail in sequence.tail_samples]
            if spikes.n_frames not in allowed:
                raise AlignmentError(
                    f"{path}: expected {' or '.join(map(str, allowed))} spike samples for the "
                    f"exposure [{window.t0:.6f}, {window.t1:.6f}] s at {clock.rate:g} Hz, found "
                    f"{_remedy(sequence, stop, spikes.n_frames, geometry)}"
                )
        where = f"{path}, frame {window.frame_index}"
        try:
            start, stop = clock.require_inside(window.t0, window.t1, spikes.n_frames, where)
        except SpikeWindowError as error:
            raise AlignmentError(f"{error}, or let --estimate find it from the frames") from error
        count = spikes.count_spikes(start, stop)
        windows.append(window.model_copy(update={"spike_count": count}))
        if files[window.spikes].sha256 is None:
            files[window.spikes] = _hashed(path, files[window.spikes], geometry, cut)
    return planned.model_copy(update={"windows": tuple(windows), "files": files})


def _remedy(sequence: FoundSequence, expected: int, found: int, geometry: SpikeGeometry) -> str:
    """Return what was found in a file of one exposure, and what to do about it.

    Args:
        sequence: the sequence's files.
        expected: samples up to the exposure's end.
        found: samples in the file.
        geometry: how they lie in it.
    """
    if sequence.stated_in is None or found <= expected:
        return f"{found} of {geometry.describe()}; check --exposure, --fps, --rate and --geometry"
    return (
        f"{found} = {expected} + {found - expected}: set `spikes.after: [{found - expected}]` in "
        f"{sequence.stated_in}, or `spikes.before` if some of them come before the exposure"
    )


def _hashed(path: Path, seen: FileRecord, geometry: SpikeGeometry, cut: Cut | None) -> FileRecord:
    part = None if cut is None else part_of(path, geometry, cut)
    form = HashForm.of_bytes(seen.size, part)
    update = {"sha256": hash_file(path, seen.size, form), "piece": form.piece, "part": part}
    if _record(str(path)) != seen:
        raise AlignmentError(f"{path}: changed while it was read; align again when it is complete")
    return seen.model_copy(update=update)
