"""What must be done to make a sequence, as frozen records. No I/O here.

    manifest's sequence --plan_sequence--> SequencePlan: record, small arrays, tasks
                                           task 0: windows [0, S)   one shard of each array
                                           task 1: windows [S, 2S)  ...

A task writes whole shards only, so that two workers never touch the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..align.manifest import FileRecord, Sequence
from ..spikes.geometry import SpikeGeometry
from .schema import (
    SCHEMA_VERSION,
    Kind,
    SequenceRecord,
    StoreError,
    VoxelType,
    shard_windows,
)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """One call of `write_shard`: windows [start, stop) of one sequence, all arrays."""

    store: str
    """Absolute path of the store."""
    root: str
    """Absolute path of the data set's folder."""
    record: SequenceRecord
    start: int
    stop: int
    windows: tuple[WindowSource, ...]
    sources: tuple[SourceFile, ...]
    geometry: SpikeGeometry
    only_voxels: bool = False
    """For kind npy: the rest of the unified tree is there already, being the source."""
    stems: tuple[str, ...] = ()
    """For kind npy: the windows' file names without suffix."""


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """All that makes one sequence."""

    record: SequenceRecord
    """Without its completion mark."""
    small: dict[str, np.ndarray]
    """samples, t0, t1, frame_index."""
    tasks: tuple[ShardTask, ...]

    @property
    def seq(self) -> str:
        """The sequence's name."""
        return self.record.seq


def plan_sequence(
    sequence: Sequence,
    *,
    store: str,
    root: str,
    kind: Kind,
    bins: int,
    frame_shape: tuple[int, int],
    seen: Mapping[str, FileRecord],
    only_voxels: bool = False,
) -> SequencePlan:
    """Turn one sequence of a manifest into task records, one a shard.

    Args:
        sequence: as the manifest has it.
        store: absolute path of the store.
        root: absolute path of the data set's folder.
        kind: what the store holds.
        bins: K.
        frame_shape: (H, W) of its frames, in pixels.
        seen: what each of its files is now.
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
    most = max(-(-(stop - start) // bins) for start, stop in ranges)
    voxel_dtype: VoxelType = "uint16" if most > 255 else "uint8"
    n = len(sequence.windows)
    has_sharp = _has_sharp(sequence)
    record = SequenceRecord(
        kind=kind,
        seq=sequence.seq,
        bins=bins,
        geometry=sequence.geometry,
        rate=sequence.rate,
        first=_shared_first(sequence),
        gain=sequence.gain,
        windows=n,
        shard_windows=shard_windows(n, bins, geometry.shape, frame_shape, has_sharp, voxel_dtype),
        voxel_dtype=voxel_dtype,
        voxel_shape=geometry.shape,
        frame_shape=frame_shape,
        has_sharp=has_sharp,
        plan_sha256=plan_digest(sequence, kind, bins),
    )
    sources = tuple(
        WindowSource(w.frame_index, w.spikes, start, stop, w.blur, w.sharp)
        for w, (start, stop) in zip(sequence.windows, ranges, strict=True)
    )
    small = {
        "samples": np.array([stop - start for start, stop in ranges], np.int64),
        "t0": np.array([w.t0 for w in sequence.windows], np.float64),
        "t1": np.array([w.t1 for w in sequence.windows], np.float64),
        "frame_index": np.array([w.frame_index for w in sequence.windows], np.int64),
    }
    # The windows of one sequence can share a recording: the first task to read it hashes it.
    hashed: set[str] = set()
    tasks = []
    for a in range(0, n, record.shard_windows):
        part = sources[a : a + record.shard_windows]
        names = dict.fromkeys(
            path for w in part for path in (w.spikes, w.blur, w.sharp) if path is not None
        )
        files = tuple(
            SourceFile(
                path,
                seen[path].size,
                seen[path].mtime_ns,
                sequence.files[path].sha256,
                path not in hashed,
            )
            for path in names
        )
        hashed.update(names)
        tasks.append(
            ShardTask(
                store=store,
                root=root,
                record=record,
                start=a,
                stop=a + len(part),
                windows=part,
                sources=files,
                geometry=geometry,
                only_voxels=only_voxels,
                stems=tuple(frame_stem(w, only_voxels) for w in part) if kind == "npy" else (),
            )
        )
    return SequencePlan(record, small, tuple(tasks))


def plan_digest(sequence: Sequence, kind: Kind, bins: int) -> str:
    """Return the hex SHA-256 of all that decides a sequence's content, but for its files."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "bins": bins,
        "geometry": sequence.geometry,
        "rate": sequence.rate,
        "gain": sequence.gain,
        "windows": [window.model_dump(mode="json") for window in sequence.windows],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def frame_stem(window: WindowSource, as_source: bool) -> str:
    """Return a window's file name without suffix in the unified layout.

    The frame's number, not the source's name: names such as 0007_002 mean another number.
    """
    if as_source:
        return window.blur.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return f"{window.frame_index:06d}"


def _has_sharp(sequence: Sequence) -> bool:
    without = [window for window in sequence.windows if window.sharp is None]
    if without and len(without) < len(sequence.windows):
        raise StoreError(
            f"{sequence.seq}: frame {without[0].frame_index} has no sharp frame, but others "
            "have; add it, or take the sequence's sharp frames away, and run `align` again"
        )
    return not without


def _shared_first(sequence: Sequence) -> float | None:
    firsts = {(window.spikes, window.first) for window in sequence.windows}
    return sequence.windows[0].first if len(firsts) == 1 else None
