"""What must be done to make a sequence, as frozen records. No I/O here.

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
import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..align.manifest import AlignedSequence, FileRecord
from ..spikes.geometry import SpikeGeometry
from ..spikes.registration import Registration
from ..storage.base import StoreError
from ..store.arrays import METADATA, ArraySpec, Codec, array_metadata
from ..store.schema import SCHEMA_VERSION, Kind, SequenceRecord, shard_windows


@dataclass(frozen=True, slots=True)
class WindowSource:
    """Where one window's pixels come from; paths are relative to the data set's folder."""

    frame_index: int
    spikes: str
    start: int
    """First spike sample in that file."""
    stop: int
    """One past the last."""
    blur: str
    sharp: str | None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as the planner saw it; a task refuses to read another."""

    path: str
    size: int
    mtime_ns: int
    sha256: str | None
    """As `align` recorded it; None: not known."""
    hashed_here: bool
    """Whether this task reports the hash: one task of the sequence does."""


@dataclass(frozen=True, slots=True)
class SpikeRun:
    """Consecutive samples of one file that windows need, and where they lie in `spikes`."""

    path: str
    start: int
    """First sample in the file."""
    stop: int
    """One past the last."""
    at: int
    """Where the first one lies in `spikes`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """One call of `write_shard`: [start, stop) along the first axis of some arrays."""

    store: str
    """Where the store is."""
    root: str
    """Absolute path of the data set's folder."""
    record: SequenceRecord
    arrays: tuple[ArraySpec, ...]
    """Those of which it writes one shard each."""
    start: int
    stop: int
    windows: tuple[WindowSource, ...] = ()
    """Those in [start, stop), for arrays of windows."""
    runs: tuple[SpikeRun, ...] = ()
    """Those that overlap [start, stop), for `spikes`."""
    sources: tuple[SourceFile, ...]
    geometry: SpikeGeometry
    registration: Registration | None = None
    """Where spike pixels lie in the frames; None: both cameras see the same."""
    small_files: tuple[tuple[str, bytes], ...] = ()
    """For a sequence's first task: metadata and small arrays, by path relative to the group."""
    only_voxels: bool = False
    """For kind npy: the rest of the unified tree is there already, being the source."""
    stems: tuple[str, ...] = ()
    """For kind npy: the windows' file names without suffix."""

    @property
    def nbytes(self) -> int:
        """Bytes that it writes, before compression; of kind npy those of counts."""
        rows = self.stop - self.start
        if self.record.kind == "npy":
            return rows * self.record.voxel_bytes
        return sum(rows * math.prod(s.shape[1:]) * s.itemsize for s in self.arrays)


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """All that makes one sequence."""

    record: SequenceRecord
    """Without its completion mark."""
    tasks: tuple[ShardTask, ...]

    @property
    def seq(self) -> str:
        """The sequence's name."""
        return self.record.seq


def plan_sequence(
    sequence: AlignedSequence,
    *,
    store: str,
    root: str,
    kind: Kind,
    bins: int,
    frame_shape: tuple[int, int],
    seen: Mapping[str, FileRecord],
    codec: Codec = "lz4",
    only_voxels: bool = False,
) -> SequencePlan:
    """Turn one sequence of a manifest into task records.

    Args:
        sequence: as the manifest has it.
        store: where the store is.
        root: absolute path of the data set's folder.
        kind: what the store holds.
        bins: K.
        frame_shape: (H, W) of its frames, in pixels.
        seen: what each of its files is now.
        codec: of counts.
        only_voxels: leave out images and spikes (kind npy, into the source's own folder).

    Raises:
        StoreError: no windows, fewer samples than bins, or sharp frames for some windows only.
    """
    if not sequence.windows:
        raise StoreError(f"{sequence.seq}: the manifest has no window of it; run `align` again")
    ranges = [sequence.clock(w).samples(w.t0, w.t1) for w in sequence.windows]
    for window, (start, stop) in zip(sequence.windows, ranges, strict=True):
        if stop - start < bins:
            raise StoreError(
                f"{sequence.seq}: frame {window.frame_index} has {stop - start} spike samples "
                f"for {bins} bins ({window.spikes}); give --bins {stop - start} or fewer"
            )
    geometry = sequence.spike_geometry()
    registration = sequence.registration()
    if registration is not None and registration.frame_shape != frame_shape:
        raise StoreError(
            f"{sequence.seq}: the manifest registers spikes to frames of "
            f"{registration.frame_shape}, found {frame_shape}; run `align` again"
        )
    runs, first_sample = _runs(sequence, ranges)
    n = len(sequence.windows)
    lengths = [stop - start for start, stop in ranges]
    record = SequenceRecord(
        kind=kind,
        seq=sequence.seq,
        bins=bins,
        geometry=sequence.geometry,
        rate=sequence.rate,
        first=_shared_first(sequence),
        gain=sequence.gain,
        registered_by=None if registration is None else registration.matrix,
        windows=n,
        stored_samples=runs[-1].at + runs[-1].stop - runs[-1].start if kind == "packed" else None,
        longest_window=max(lengths),
        shortest_window=min(lengths),
        voxel_shape=geometry.shape,
        frame_shape=frame_shape,
        has_sharp=_has_sharp(sequence),
        codec=codec,
        blur_kind=sequence.blur_kind,
        plan_sha256=plan_digest(sequence, kind, bins),
    )
    windows = tuple(
        WindowSource(w.frame_index, w.spikes, start, stop, w.blur, w.sharp)
        for w, (start, stop) in zip(sequence.windows, ranges, strict=True)
    )
    small = {
        "samples": np.array(lengths, np.int64),
        "t0": np.array([w.t0 for w in sequence.windows], np.float64),
        "t1": np.array([w.t1 for w in sequence.windows], np.float64),
        "frame_index": np.array([w.frame_index for w in sequence.windows], np.int64),
    }
    if kind == "packed":
        small["first_sample"] = np.array(first_sample, np.int64)
    specs = record.arrays()
    tasks: list[ShardTask] = []
    # Tasks of one sequence can share a recording: the first one to read it hashes it.
    hashed: set[str] = set()

    def add(
        arrays: tuple[str, ...],
        start: int,
        stop: int,
        names: Iterable[str],
        *,
        part: tuple[WindowSource, ...] = (),
        own_runs: tuple[SpikeRun, ...] = (),
    ) -> None:
        paths = tuple(dict.fromkeys(names))
        tasks.append(
            ShardTask(
                store=store,
                root=root,
                record=record,
                arrays=tuple(specs[name] for name in arrays),
                start=start,
                stop=stop,
                windows=part,
                runs=own_runs,
                sources=tuple(
                    SourceFile(
                        path,
                        seen[path].size,
                        seen[path].mtime_ns,
                        sequence.files[path].sha256,
                        path not in hashed,
                    )
                    for path in paths
                ),
                geometry=geometry,
                registration=registration,
                small_files=() if tasks or kind == "npy" else _small_files(record, small),
                only_voxels=only_voxels,
                stems=tuple(frame_stem(w, only_voxels) for w in part) if kind == "npy" else (),
            )
        )
        hashed.update(paths)

    if kind == "packed":
        rows = specs["spikes"].per_file
        assert record.stored_samples is not None
        for a in range(0, record.stored_samples, rows):
            b = min(a + rows, record.stored_samples)
            own = tuple(run for run in runs if run.at < b and run.at + run.stop - run.start > a)
            add(("spikes",), a, b, (run.path for run in own), own_runs=own)
    arrays: tuple[str, ...] = record.image_names if kind != "npy" else ()
    if kind == "counts":
        arrays = ("voxels", *arrays)
    whole = _windows_a_task(record)
    for a in range(0, n, whole):
        part = windows[a : a + whole]
        spikes = (w.spikes for w in part) if kind != "packed" else ()
        names = [*spikes, *(path for w in part for path in (w.blur, w.sharp) if path is not None)]
        add(arrays, a, a + len(part), names, part=part)
    return SequencePlan(record, tuple(tasks))


def _small_files(
    record: SequenceRecord, small: Mapping[str, np.ndarray]
) -> tuple[tuple[str, bytes], ...]:
    files = []
    for spec in record.arrays().values():
        files.append((f"{spec.name}/{METADATA}", array_metadata(spec)))
        if spec.shards is None:
            little = small[spec.name].astype(np.dtype(spec.dtype).newbyteorder("<"))
            files.append((spec.key(0), little.tobytes()))
    return tuple(files)


def _windows_a_task(record: SequenceRecord) -> int:
    if record.kind != "npy":
        return record.arrays()["blur"].per_file
    return shard_windows(record.windows, record.voxel_bytes)


def _runs(
    sequence: AlignedSequence, ranges: list[tuple[int, int]]
) -> tuple[tuple[SpikeRun, ...], list[int]]:
    """Return the samples that windows need, each once, and where each window's first one is."""
    needed: dict[str, list[tuple[int, int]]] = {}
    for window, span in zip(sequence.windows, ranges, strict=True):
        needed.setdefault(window.spikes, []).append(span)
    runs: list[SpikeRun] = []
    of_file: dict[str, tuple[list[int], list[SpikeRun]]] = {}
    at = 0
    for path, spans in needed.items():
        own = []
        for start, stop in _merged(spans):
            own.append(SpikeRun(path, start, stop, at))
            at += stop - start
        of_file[path] = [run.start for run in own], own
        runs += own
    first_sample = []
    for window, (start, _) in zip(sequence.windows, ranges, strict=True):
        starts, own = of_file[window.spikes]
        run = own[bisect_right(starts, start) - 1]
        first_sample.append(run.at + start - run.start)
    return tuple(runs), first_sample


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the union of [start, stop) spans as spans that don't touch, ascending."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def plan_digest(sequence: AlignedSequence, kind: Kind, bins: int) -> str:
    """Return the hex SHA-256 of all that decides a sequence's content, but for its files.

    In kind packed the bins decide nothing: they are counted when read.
    """
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "bins": None if kind == "packed" else bins,
        "geometry": sequence.geometry,
        "rate": sequence.rate,
        "gain": sequence.gain,
        "windows": [window.model_dump(mode="json") for window in sequence.windows],
    }
    if sequence.space is not None:  # only then: stores without it stay what they are
        content["matrix"] = sequence.space.matrix
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def frame_stem(window: WindowSource, as_source: bool) -> str:
    """Return a window's file name without suffix in the unified layout.

    The frame's number, not the source's name: names such as 0007_002 mean another number.
    """
    if as_source:
        return window.blur.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return f"{window.frame_index:06d}"


def _has_sharp(sequence: AlignedSequence) -> bool:
    without = [window for window in sequence.windows if window.sharp is None]
    if without and len(without) < len(sequence.windows):
        raise StoreError(
            f"{sequence.seq}: frame {without[0].frame_index} has no sharp frame, but others "
            "have; add it, or take the sequence's sharp frames away, and run `align` again"
        )
    return not without


def _shared_first(sequence: AlignedSequence) -> float | None:
    firsts = {(window.spikes, window.first) for window in sequence.windows}
    return sequence.windows[0].first if len(firsts) == 1 else None
