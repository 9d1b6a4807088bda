"""Comparison of a store with a manifest: which sequences are kept, and which must be made.

A sequence is kept if it is marked complete and would come out the same: same plan, same sources,
and files of the same sizes (with --check, of the same checksums). Nothing is written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence, FileRecord, Manifest
from ..host.files import UnsafePathError
from ..host.reporter import counted
from ..storage.base import Storage, StoreError
from ..store.arrays import Codec
from ..store.records import NPY_VOXELS, read_record
from ..store.schema import Kind, SequenceRecord
from .check import damage
from .options import CODECS, VoxelizeOptions
from .plan import SequencePlan, Target, plan_digest, plan_sequence
from .sources import ManifestSources, changed_since_aligned
from .task import Failure

Seen = dict[str, FileRecord]
"""Present state of each file of a sequence, by path relative to the data set's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelizeJob:
    """Sources, store and choices of one run."""

    manifest: Manifest
    manifest_sha256: str
    sources: ManifestSources
    """Files of the data set."""
    store: Storage
    kind: Kind
    options: VoxelizeOptions
    left_out: int = 0
    """Frames that are not exposed wholly in the part of the recordings that is read."""

    @property
    def in_place(self) -> bool:
        """Whether voxels go beside the spikes they are made from."""
        if self.kind != "npy" or self.manifest.layout != "unified":
            return False
        root = self.sources.root
        return root.is_local and Path(self.store.location).resolve() == Path(root.location)

    @property
    def part(self) -> str:
        """Part of a sequence's folder that the run writes; empty: all of it."""
        return NPY_VOXELS if self.in_place else ""

    def plan(self, sequence: AlignedSequence, seen: Seen) -> SequencePlan:
        """Return the plan of one sequence; raises as `plan_sequence` does."""
        target = Target(
            store=self.store.location,
            root=self.sources.root.location,
            kind=self.kind,
            bins=self.options.bins,
            codec=cast(Codec, self.options.codec or CODECS[0]),
            only_voxels=self.in_place,
        )
        form, sensor = self.sources.frame_form(sequence), self.sources.sensor(sequence)
        return plan_sequence(sequence, target, form, seen, sensor)


@dataclass(slots=True)
class Compared:
    """Result of comparing a store with a manifest."""

    todo: list[tuple[AlignedSequence, Seen]] = field(default_factory=list)
    """Sequences to make, with the present state of their files."""
    begun: set[str] = field(default_factory=set)
    """Sequences among these of which the store has an unfinished part."""
    kept: list[SequenceRecord] = field(default_factory=list)
    """Records of whole, unchanged sequences. In kind packed one may name other bins."""
    failures: dict[str, Failure] = field(default_factory=dict)
    """Sequences that can't be made, by name."""

    @property
    def windows(self) -> int:
        """Windows of the sequences to make."""
        return sum(len(sequence.windows) for sequence, _ in self.todo)


def compare(job: VoxelizeJob) -> Compared:
    """Compare every sequence of the manifest with what the store has of it.

    Raises:
        UnsafePathError: the manifest names a file outside of its root.
        StoreError: unless errors are skipped, a source is missing or changed since it was
            aligned, or what is there may not be replaced.
    """
    compared = Compared()
    for sequence in job.manifest.sequences:
        try:
            _compare_one(job, sequence, compared)
        except UnsafePathError:
            raise
        except SpikeDeblurError as error:
            if job.options.on_error == "stop":
                raise
            compared.failures[sequence.seq] = Failure(seq=sequence.seq, error=str(error))
    return compared


def _compare_one(job: VoxelizeJob, sequence: AlignedSequence, compared: Compared) -> None:
    seen = job.sources.look(sequence)
    folder = job.store.child(sequence.seq)
    unreadable = False
    try:
        record = read_record(folder, job.kind)
    except StoreError:
        if not (job.options.check or job.options.overwrite):
            raise
        record, unreadable = None, True
    if record is not None and record.complete is not None:
        why = _difference(job, sequence, record, seen)
        if why is None and not (job.options.check and damage(folder, record)):
            compared.kept.append(record)
            return
        if why is not None and not job.options.overwrite:
            raise StoreError(
                f"{job.store}: {sequence.seq} is there already, made from something else "
                f"({why}); use --overwrite, or another store"
            )
    elif record is None and not (unreadable or job.options.overwrite) and folder.sizes(job.part):
        raise StoreError(
            f"{folder}: expected nothing or a sequence that `voxelize` wrote, found other "
            "files; use --overwrite to replace them, or another store"
        )
    elif record is not None:
        compared.begun.add(sequence.seq)
    if sequence.finding is not None and not job.options.force:
        raise StoreError(
            f"{sequence.seq}: {sequence.finding}; align again, or let --force make it as it is"
        )
    _require_aligned(job, sequence, seen)
    compared.todo.append((sequence, seen))


def _difference(
    job: VoxelizeJob, sequence: AlignedSequence, record: SequenceRecord, seen: Seen
) -> str | None:
    """Return in what a complete sequence differs from what would be made now; None: nothing."""
    assert record.complete is not None
    if record.bins != job.options.bins and record.kind != "packed":
        return f"{counted(record.bins, 'bin')}, not {job.options.bins}"
    if record.shortest_window < job.options.bins:
        samples = counted(record.shortest_window, "sample")
        return f"windows of {samples}, too few for {counted(job.options.bins, 'bin')}"
    if record.plan_sha256 != plan_digest(sequence, job.kind, job.options.bins):
        return "another geometry, rate, gain, window or file name"
    sensor = job.sources.sensor(sequence)
    if record.sensor_sha256 != (None if sensor is None else sensor.sha256):
        return "another sensor, or one where there was none"
    for relative, mark in record.complete.sources.items():
        now = seen.get(relative)
        if now is None or now.size != mark.size:
            return f"another {relative}"
        # Touched or copied: only then is the content read.
        if (now.mtime_ns != mark.mtime_ns) and (
            job.sources.sha256(relative, mark.form) != mark.sha256
        ):
            return f"another {relative}"
    if job.options.check:
        return None  # `damage` reads its files
    sizes = job.store.child(record.seq).sizes_of(record.complete.files)
    for name, size in record.complete.files.items():
        if sizes.get(name) != size:
            return f"{name} is missing or cut"
    return None


def _require_aligned(job: VoxelizeJob, sequence: AlignedSequence, seen: Seen) -> None:
    """Refuse files that are not what `align` saw."""
    for relative, recorded in sequence.files.items():
        now = seen[relative]
        if (now.size, now.mtime_ns) == (recorded.size, recorded.mtime_ns):
            continue
        if now.size != recorded.size or (
            job.sources.sha256(relative, recorded.form) != recorded.sha256
        ):
            raise changed_since_aligned(sequence.seq, relative)
