"""Plan of the tasks that make a sequence, as frozen records. No I/O here.

    manifest's sequence --plan_sequence--> SequencePlan: record, tasks

    kind counts   task 0: windows [0, S)   one shard of voxels, of blur and of sharp
                  task 1: windows [S, 2S)  ...
    kind packed   task 0: samples [0, P)   one shard of spikes
                  ...
                  task i: windows [0, S)   one shard of blur and of sharp

A task writes whole shards only, so that two workers never touch the same file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..align.manifest import AlignedSequence, FileRecord
from ..frames.images import FrameType
from ..host.pieces import HashForm
from ..host.reporter import counted
from ..spikes.between import Cut
from ..spikes.geometry import SpikeGeometry
from ..spikes.registration import Registration
from ..spikes.sensor import Sensor
from ..storage.base import StoreError, merge_spans
from ..store.arrays import ArraySpec, Codec
from ..store.schema import (
    INSTANTS,
    SENSOR_MAPS,
    SHARD_BYTES,
    SHARP_INSTANTS,
    Kind,
    SequenceRecord,
    shard_windows,
)

Ranges = list[tuple[int, int]]
"""Spike samples [start, stop), of each window or run."""


@dataclass(frozen=True, slots=True)
class FrameForm:
    """Size and type of a sequence's frames."""

    shape: tuple[int, int]
    """(H, W), in pixels."""
    dtype: FrameType


@dataclass(frozen=True, slots=True)
class WindowSource:
    """Sources of one window's pixels; paths are relative to the data set's folder."""

    frame_index: int
    spikes: str
    start: int
    """First spike sample of the window in that file."""
    stop: int
    """One past the last sample."""
    blur: str
    sharp: str | None
    instants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as the planner saw it; a task refuses to read another."""

    path: str
    size: int
    mtime_ns: int
    sha256: str | None
    """SHA-256 that `align` recorded; None: not known."""
    form: HashForm
    """How the hash is made."""
    pieces: tuple[int, ...] = ()
    """Numbers of the file's pieces that this task hashes: each is hashed by one task."""
    reads: tuple[tuple[int, int], ...] = ()
    """Bytes [start, stop) that the task reads beside these pieces, in ascending order."""
    cut: Cut | None = None
    """Part of a recording to which reading is confined; None: all of it."""


@dataclass(frozen=True, slots=True)
class SpikeRun:
    """Consecutive samples of one file that windows need, and their position in `spikes`."""

    path: str
    start: int
    """First sample in the file."""
    stop: int
    """One past the last sample in the file."""
    at: int
    """Position of the first sample in `spikes`."""

    @property
    def end(self) -> int:
        """Position in `spikes` past the last sample."""
        return self.at + self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Form and place of what is made of every sequence."""

    store: str
    """Location of the store."""
    root: str
    """Absolute path or URL of the data set's folder."""
    kind: Kind
    bins: int
    """K, temporal bins."""
    codec: Codec = "lz4"
    """Compression of counts."""
    only_voxels: bool = False
    """Whether images and spikes are left out: kind npy, into the source's own folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """One call of `write_shard`: [start, stop) along the first axis of some arrays."""

    target: Target
    record: SequenceRecord
    arrays: tuple[ArraySpec, ...] = ()
    """Arrays of which the task writes one shard each; none for kind npy."""
    start: int
    stop: int
    number: int = 0
    """Place among the tasks of the sequence."""
    noted: bool = False
    """Whether it is noted that the task is done, so that a later run does not repeat it."""
    windows: tuple[WindowSource, ...] = ()
    """Windows in [start, stop), for arrays of windows."""
    runs: tuple[SpikeRun, ...] = ()
    """Runs that overlap [start, stop), for `spikes`."""
    sources: tuple[SourceFile, ...] = ()
    """Files that the task reads."""
    links: tuple[tuple[str, str], ...] = ()
    """Links of a local data set that lead out of its folder, and their targets."""
    geometry: SpikeGeometry
    registration: Registration | None
    """Registration of spike pixels to the frames; None: both cameras see the same."""
    small: tuple[tuple[ArraySpec, tuple[float, ...]], ...] = ()
    """Arrays of one value a window, and their values, in a sequence's first task only."""
    sensor: Sensor | None = field(default=None, repr=False, compare=False)
    """Sensor whose maps are written, in a sequence's first task only; the record has its hash."""

    def samples_of(self, path: str) -> Ranges:
        """Return the samples [start, stop) of a stream that the task reads; empty: it is none."""
        if self.record.kind == "packed":
            return [(run.start, run.stop) for run in self.clipped_runs() if run.path == path]
        return [(w.start, w.stop) for w in self.windows if w.spikes == path]

    def clipped_runs(self) -> Iterator[SpikeRun]:
        """Yield the parts of the task's runs that lie in [start, stop) of `spikes`."""
        for run in self.runs:
            before, after = max(self.start - run.at, 0), max(run.end - self.stop, 0)
            start, stop = run.start + before, run.stop - after
            yield replace(run, start=start, stop=stop, at=run.at + before)

    @property
    def nbytes(self) -> int:
        """Bytes that the task writes, before compression; for kind npy those of counts; else those
        that it hashes."""
        rows = self.stop - self.start
        if not rows:
            return sum((s.form.piece or s.size) * len(s.pieces) for s in self.sources)
        if self.record.kind == "npy":
            return rows * self.record.voxel_bytes
        return sum(rows * math.prod(s.shape[1:]) * s.itemsize for s in self.arrays)


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """Record and tasks of one sequence."""

    record: SequenceRecord
    """Record without its completion mark."""
    tasks: tuple[ShardTask, ...]


def plan_sequence(
    sequence: AlignedSequence,
    target: Target,
    frames: FrameForm,
    seen: Mapping[str, FileRecord],
    sensor: Sensor | None = None,
) -> SequencePlan:
    """Turn one sequence of a manifest into task records.

    Args:
        sequence: entry of the manifest, with at least one window.
        target: form and place of what is made of it.
        frames: size and type of the frames.
        seen: present state of each file of the sequence.
        sensor: the spikes' sensor; None: pixels are taken as equal.

    Raises:
        StoreError: fewer samples than bins, or sharp frames for some windows only.
    """
    ranges = _sample_ranges(sequence, target.bins)
    runs, first_sample = _runs(sequence, ranges)
    record = _record(sequence, target, frames.shape, ranges, runs)
    if frames.dtype != record.frame_dtype and record.kind != "npy":
        record = record.with_frames(frames.dtype)
    if sequence.instants:
        if record.kind == "npy":
            raise StoreError(
                f"{sequence.seq}: the unified layout keeps one sharp frame an exposure, and the "
                "manifest names several; align without --instants, or voxelize to a store"
            )
        record = record.with_instants(len(sequence.instants))
    if sensor is not None:
        record = record.with_sensor(sensor.sha256)
    windows = tuple(
        WindowSource(w.frame_index, w.spikes, start, stop, w.blur, w.sharp, w.instants)
        for w, (start, stop) in zip(sequence.windows, ranges, strict=True)
    )
    values: dict[str, Sequence[float]] = {
        "samples": [stop - start for start, stop in ranges],
        "t0": [w.t0 for w in sequence.windows],
        "t1": [w.t1 for w in sequence.windows],
        "frame_index": [w.frame_index for w in sequence.windows],
        "first_sample": first_sample,
        INSTANTS: sequence.instants,
    }
    small = tuple(
        (s, tuple(values[s.name]))
        for s in record.arrays
        if s.shards is None and s.name not in SENSOR_MAPS
    )
    whole = ShardTask(
        target=target,
        record=record,
        start=0,
        stop=0,
        geometry=sequence.spike_geometry(),
        registration=sequence.registration(),
        links=tuple(sequence.links.items()),
    )
    parts = list(_parts(whole, windows, runs))
    sources = _sources(sequence, seen, parts)
    tasks = []
    for number, of_task in enumerate(sources):
        task = parts[number][0] if number < len(parts) else whole
        if number == 0 and record.kind != "npy":
            task = replace(task, small=small, sensor=sensor)
        tasks.append(replace(task, sources=of_task, number=number, noted=len(sources) > 1))
    return SequencePlan(record, tuple(tasks))


def _sources(
    sequence: AlignedSequence,
    seen: Mapping[str, FileRecord],
    parts: list[tuple[ShardTask, list[str]]],
) -> list[tuple[SourceFile, ...]]:
    """Return the files of each task, which hashes the pieces that it reads.

    After them come those of tasks that only hash pieces which no other one reads.

    Args:
        sequence: entry of the manifest.
        seen: present state of each file of the sequence.
        parts: tasks, and the paths of the files that each one reads.
    """
    cuts = {window.spikes: sequence.cut(window) for window in sequence.windows}
    bits = sequence.spike_geometry().frame_bits
    sources: list[dict[str, SourceFile]] = []
    readers: dict[str, list[tuple[Ranges, int]]] = {}
    for number, (task, paths) in enumerate(parts):
        sources.append({})
        for path in dict.fromkeys(paths):
            now, recorded = seen[path], sequence.files[path]
            form = recorded.form
            if recorded.sha256 is None:
                form = HashForm.of_bytes(now.size, recorded.part)
            spans = [(a * bits // 8, -(-b * bits // 8)) for a, b in task.samples_of(path)]
            reads = merge_spans(spans or [(0, now.size)])
            sources[number][path] = SourceFile(
                path,
                now.size,
                now.mtime_ns,
                recorded.sha256,
                form,
                (),
                tuple(reads),
                cuts.get(path),
            )
            readers.setdefault(path, []).append((reads, number))
    for path, reading in readers.items():
        file = sources[reading[0][1]][path]
        begins = [begin for begin, _ in file.form.spans(file.size)]
        free, own = set(range(len(begins))), []
        for spans, _ in sorted(reading):
            read = {
                piece
                for start, stop in spans
                for piece in range(bisect_left(begins, start), bisect_left(begins, stop))
            }
            own.append(sorted(free & read))
            free -= read
        if file.form.piece is None:  # who reads it first hashes all of it
            free, own[0] = set(), [0]
        for pieces, (_, number) in zip(own, sorted(reading), strict=True):
            sources[number][path] = replace(sources[number][path], pieces=tuple(pieces))
        unread = replace(file, pieces=(), reads=())
        left, most = sorted(free), max(1, SHARD_BYTES // (file.form.piece or 1))
        groups = (tuple(left[i : i + most]) for i in range(0, len(left), most))
        sources += [{path: replace(unread, pieces=group)} for group in groups]
    return [tuple(of_task.values()) for of_task in sources]


def _sample_ranges(sequence: AlignedSequence, bins: int) -> Ranges:
    """Return the spike samples [start, stop) of each window, in its file."""
    ranges = [sequence.clock(w).samples(w.t0, w.t1) for w in sequence.windows]
    for window, (start, stop) in zip(sequence.windows, ranges, strict=True):
        if stop - start < bins:
            raise StoreError(
                f"{sequence.seq}: frame {window.frame_index} has "
                f"{counted(stop - start, 'spike sample')} "
                f"for {counted(bins, 'bin')} ({window.spikes}); give --bins {stop - start} or fewer"
            )
    return ranges


def _record(
    sequence: AlignedSequence,
    target: Target,
    frame_shape: tuple[int, int],
    ranges: Ranges,
    runs: tuple[SpikeRun, ...],
) -> SequenceRecord:
    registration = sequence.registration()
    if registration is not None and registration.frame_shape != frame_shape:
        raise StoreError(
            f"{sequence.seq}: the manifest registers spikes to frames of "
            f"{registration.frame_shape}, found {frame_shape}; run `align` again"
        )
    firsts = {(window.spikes, window.first) for window in sequence.windows}
    packed = target.kind == "packed"
    return SequenceRecord(
        kind=target.kind,
        seq=sequence.seq,
        bins=target.bins,
        geometry=sequence.geometry,
        rate=sequence.rate,
        first=sequence.windows[0].first if len(firsts) == 1 else None,
        gain=sequence.gain,
        registered_by=None if registration is None else registration.matrix,
        windows=len(ranges),
        stored_samples=runs[-1].end if packed else None,
        longest_window=max(stop - start for start, stop in ranges),
        shortest_window=min(stop - start for start, stop in ranges),
        voxel_shape=sequence.spike_geometry().shape,
        frame_shape=frame_shape,
        has_sharp=_has_sharp(sequence),
        codec=target.codec,
        readout=sequence.readout,
        blur_kind=sequence.blur_kind,
        finding=sequence.finding,
        plan_sha256=plan_digest(sequence, target.kind, target.bins),
    )


def _parts(
    whole: ShardTask, windows: tuple[WindowSource, ...], runs: tuple[SpikeRun, ...]
) -> Iterator[tuple[ShardTask, list[str]]]:
    """Yield the sequence's tasks, and the source files that each one reads."""
    record = whole.record
    specs = record.specs
    if record.stored_samples is not None:
        rows = specs["spikes"].per_file
        for a in range(0, record.stored_samples, rows):
            b = min(a + rows, record.stored_samples)
            overlapping = tuple(run for run in runs if run.at < b and run.end > a)
            part = replace(whole, arrays=(specs["spikes"],), start=a, stop=b, runs=overlapping)
            yield part, [run.path for run in overlapping]
    images = (*record.image_names, *((SHARP_INSTANTS,) if record.instants else ()))
    names = {"packed": images, "counts": ("voxels", *images), "npy": ()}
    arrays = tuple(specs[name] for name in names[record.kind])
    rows = arrays[0].per_file if arrays else shard_windows(record.windows, record.voxel_bytes)
    for a in range(0, record.windows, rows):
        in_task = windows[a : a + rows]
        paths = [w.spikes for w in in_task] if record.kind != "packed" else []
        images_of = ((w.blur, w.sharp, *w.instants) for w in in_task)
        paths += [path for of_window in images_of for path in of_window if path is not None]
        stop = a + len(in_task)
        yield replace(whole, arrays=arrays, start=a, stop=stop, windows=in_task), paths


def _runs(sequence: AlignedSequence, ranges: Ranges) -> tuple[tuple[SpikeRun, ...], list[int]]:
    """Return the samples that windows need, each once, and where each window's first one is."""
    needed: dict[str, Ranges] = {}
    for window, span in zip(sequence.windows, ranges, strict=True):
        needed.setdefault(window.spikes, []).append(span)
    runs: dict[str, list[SpikeRun]] = {}
    at = 0
    for path, spans in needed.items():
        runs[path] = []
        for start, stop in merge_spans(spans):
            runs[path].append(SpikeRun(path, start, stop, at))
            at += stop - start
    first_sample = []
    for window, (start, _) in zip(sequence.windows, ranges, strict=True):
        in_file = runs[window.spikes]
        run = in_file[bisect_right(in_file, start, key=lambda run: run.start) - 1]
        first_sample.append(run.at + start - run.start)
    return tuple(itertools.chain.from_iterable(runs.values())), first_sample


def plan_digest(sequence: AlignedSequence, kind: Kind, bins: int) -> str:
    """Return the hex SHA-256 of all that decides a sequence's content, except its files.

    The bins do not decide the content of kind packed, whose spikes are counted when read.
    """
    content: dict[str, Any] = {
        "schema_version": 2,  # later ones hold the same content
        "kind": kind,
        "bins": None if kind == "packed" else bins,
        "geometry": sequence.geometry,
        "rate": sequence.rate,
        "gain": sequence.gain,
        "windows": [window.model_dump(mode="json") for window in sequence.windows],
    }
    if sequence.space is not None:  # only then: other stores keep their digest
        content["matrix"] = sequence.space.matrix
    if sequence.instants:
        content["instants"] = sequence.instants
    if sequence.readout is not None:
        content["readout"] = sequence.readout
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _has_sharp(sequence: AlignedSequence) -> bool:
    without = [window for window in sequence.windows if window.sharp is None]
    if without and len(without) < len(sequence.windows):
        raise StoreError(
            f"{sequence.seq}: frame {without[0].frame_index} has no sharp frame, but others "
            "have; add it, or take the sequence's sharp frames away, and run `align` again"
        )
    return not without
