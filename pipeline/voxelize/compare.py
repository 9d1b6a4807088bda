"""What a store already holds of a manifest, and what must be made. Writes nothing.

A sequence is kept if its mark says that it is whole and it would come out the same: same plan,
same sources, its files there in their sizes (or, if asked for, with the checksums in its record).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence, FileRecord, Manifest
from ..host.files import UnsafePathError
from ..storage.base import Storage, StoreError
from ..store.arrays import Codec
from ..store.records import NPY_MARK, read_record
from ..store.schema import Kind, SequenceRecord
from .check import damage
from .plan import plan_digest
from .sources import ManifestSources

OnError = Literal["stop", "skip"]

Seen = dict[str, FileRecord]
"""What each file of a sequence is now, by path relative to the data set's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A sequence that could not be made."""

    seq: str
    error: str
    """What was wrong, naming the file, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelizeJob:
    """What `voxelize` was asked for."""

    manifest: Manifest
    manifest_sha256: str
    sources: ManifestSources
    """The data set's files."""
    store: Storage
    kind: Kind
    bins: int
    codec: Codec
    overwrite: bool
    check: bool
    """Read what is there back."""
    on_error: OnError

    @property
    def in_place(self) -> bool:
        """Whether voxels go beside the spikes they are made from."""
        if self.kind != "npy" or self.manifest.layout != "unified":
            return False
        root = self.sources.root
        return root.is_local and Path(self.store.location).resolve() == Path(root.location)


@dataclass(slots=True)
class Compared:
    """A store beside a manifest."""

    todo: list[tuple[AlignedSequence, Seen]] = field(default_factory=list)
    """Sequences to make, with what their files are now."""
    kept: list[SequenceRecord] = field(default_factory=list)
    """Whole and unchanged. One may name other bins: in kind packed that is all that changes."""
    failures: list[Failure] = field(default_factory=list)


def compare(job: VoxelizeJob) -> Compared:
    """Look at every sequence of the manifest, and at what the store has of it.

    Raises:
        UnsafePathError: the manifest names a file outside of its root.
        StoreError: unless failures are to be skipped: a source is missing or changed since it was
            aligned, or what is there may not be replaced.
    """
    found = Compared()
    for sequence in job.manifest.sequences:
        try:
            _compare_one(job, sequence, found)
        except UnsafePathError:
            raise
        except SpikeDeblurError as error:
            if job.on_error == "stop":
                raise
            found.failures.append(Failure(seq=sequence.seq, error=str(error)))
    return found


def _compare_one(job: VoxelizeJob, sequence: AlignedSequence, found: Compared) -> None:
    seen = job.sources.look(sequence)
    folder = job.store.child(sequence.seq)
    unreadable = False
    try:
        record = read_record(folder, job.kind)
    except StoreError:
        if not (job.check or job.overwrite):
            raise
        record, unreadable = None, True
    if record is not None and record.complete is not None:
        why = _difference(job, sequence, record, seen)
        if why is None and not (job.check and damage(folder, record)):
            found.kept.append(record)
            return
        if why is not None and not job.overwrite:
            raise StoreError(
                f"{job.store}: {sequence.seq} is there already, made from something else "
                f"({why}); use --overwrite, or another store"
            )
    elif record is None and not (unreadable or job.overwrite) and _holds_data(folder, job):
        raise StoreError(
            f"{folder}: expected nothing or a sequence that `voxelize` wrote, found other "
            "files; use --overwrite to replace them, or another store"
        )
    _require_aligned(job, sequence, seen)
    found.todo.append((sequence, seen))


def _difference(
    job: VoxelizeJob, sequence: AlignedSequence, record: SequenceRecord, seen: Seen
) -> str | None:
    """Return in what a complete sequence differs from what would be made now; None: nothing."""
    assert record.complete is not None
    if record.bins != job.bins and record.kind != "packed":
        return f"{record.bins} bins, not {job.bins}"
    if record.shortest_window < job.bins:
        return f"windows of {record.shortest_window} samples, too few for {job.bins} bins"
    if record.plan_sha256 != plan_digest(sequence, job.kind, job.bins):
        return "another geometry, rate, gain, window or file name"
    for relative, mark in record.complete.sources.items():
        now = seen.get(relative)
        if now is None or now.size != mark.size:
            return f"another {relative}"
        # Touched or copied: only then is the content read.
        if now.mtime_ns != mark.mtime_ns and job.sources.sha256(relative) != mark.sha256:
            return f"another {relative}"
    if job.check:
        return None  # its files are read
    there = job.store.child(record.seq).sizes_of(record.complete.files)
    for name, size in record.complete.files.items():
        if there.get(name) != size:
            return f"{name} is missing or cut"
    return None


def _require_aligned(job: VoxelizeJob, sequence: AlignedSequence, seen: Seen) -> None:
    """Refuse files that are not what `align` saw."""
    for relative, recorded in sequence.files.items():
        now = seen[relative]
        if (now.size, now.mtime_ns) == (recorded.size, recorded.mtime_ns):
            continue
        same_content = (
            now.size == recorded.size
            and recorded.sha256 is not None
            and job.sources.sha256(relative) == recorded.sha256
        )
        if not same_content:
            raise StoreError(
                f"{sequence.seq}: {relative} changed since it was aligned; run "
                "`spikedeblur align` again"
            )


def _holds_data(folder: Storage, job: VoxelizeJob) -> bool:
    return bool(folder.sizes(NPY_MARK.rpartition("/")[0] if job.in_place else ""))
