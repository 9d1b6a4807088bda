"""The voxelize job: a manifest's sequences into a store, whole sequences only.

    manifest --compare with what is there--> sequences to make --plan--> tasks
    tasks --Dask or this process--> shards --all of a sequence there--> completion mark

A killed run continues when started again: sequences with a mark are kept, the others are made
anew. A script that calls this with several workers needs the usual
`if __name__ == "__main__":`, because worker processes are spawned.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..align.manifest import FileRecord, Manifest, Sequence, read_manifest
from ..files import all_inside, inside, sha256_file
from ..images import image_shape
from ..progress import Progress, Throughput
from ..spikes.geometry import SpikeGeometry
from ..spikes.sidefile import SideFile, write_folder_side_file
from .arrays import Codec
from .group import (
    NPY_MARK,
    begin_sequence,
    claim_store,
    exclusive,
    mark_complete,
    read_record,
    rewrite_record,
    root_kind,
    write_splits,
)
from .jobs import run_tasks
from .place import Place, open_place
from .plan import SequencePlan, ShardTask, plan_digest, plan_sequence
from .schema import Completion, Kind, SequenceRecord, SourceMark, StoreError
from .task import ShardResult, write_shard

KINDS: tuple[Kind, ...] = ("packed", "counts")
"""What a Zarr store can hold; the first is the default."""

CODECS: tuple[Codec, ...] = ("lz4", "zstd", "none")
"""How counts can be compressed, by Blosc; the first is the default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelizeSummary:
    """What a run did."""

    store: str
    format: str
    kind: Kind
    bins: int
    sequences_written: int
    sequences_kept: int
    """Complete already and unchanged."""
    windows: int
    """Written by this run."""
    bytes_in: int
    """Packed spikes of the windows written."""
    bytes_counts: int
    """Their counts in memory."""
    bytes_out: int
    """Files written, images included."""
    bytes_voxels: int
    """Of these, the spikes or voxels."""
    seconds: float
    dry_run: bool = False
    """True: nothing was written; windows and sequences are what would be."""

    @property
    def compression(self) -> float | None:
        """Counts' bytes over their bytes in the store; None if none were written."""
        return self.bytes_counts / self.bytes_voxels if self.bytes_voxels else None

    @property
    def windows_per_second(self) -> float | None:
        """Whole job, start of workers included; None if none were written."""
        return self.windows / self.seconds if self.windows and not self.dry_run else None

    def as_dict(self) -> dict[str, object]:
        """Return all figures, derived ones too, for JSON."""
        return asdict(self) | {
            "compression": self.compression,
            "windows_per_second": self.windows_per_second,
        }


def voxelize_manifest(
    manifest_path: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    bins: int = 32,
    workers: int | None = None,
    scheduler: str | None = None,
    format: str = "zarr",
    kind: str | None = None,
    codec: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> VoxelizeSummary:
    """Write voxel counts, frames and times of a manifest's sequences to a store.

    Args:
        manifest_path: as `align` wrote it.
        store: folder or URL (s3://, gs://); new, or a store that this function wrote.
        bins: K, temporal bins a window.
        workers: processes; None: one a core; 1: this process.
        scheduler: address of a running Dask scheduler, whose workers see the same paths.
        format: zarr, or npy for the unified layout's files.
        kind: of a Zarr store: packed, the spikes themselves, counted when they are read, or
            counts. None: as the store there is, packed in a new one.
        codec: of kind counts: lz4 (where None), zstd, or none, which is read fastest and takes
            most space. It makes no sequence anew: a store may hold several.
        overwrite: make sequences anew that are there, complete, and differ.
        dry_run: check and plan only.
        on_progress: called with windows done, windows in all, and the sequence's name.

    Raises:
        StoreError: another store is there, a sequence differs, a source changed since it was
            aligned, or a shard failed. What is complete stays.
    """
    begun = time.perf_counter()
    if bins < 1 or (workers is not None and workers < 1):
        raise StoreError(f"expected bins and workers of 1 or more, got {bins} and {workers}")
    place = open_place(store)
    kind_ = _kind(format, kind, place)
    manifest = read_manifest(manifest_path)
    if kind_ == "npy":
        _require_folder_splits(manifest)
    job = _Job(
        manifest=manifest,
        manifest_path=Path(manifest_path),
        root=manifest.root_folder(manifest_path),
        store=place,
        kind=kind_,
        bins=bins,
        codec=_codec(codec, kind_),
        overwrite=overwrite,
    )
    with nullcontext() if dry_run else exclusive(job.store):
        claim_store(job.store, job.kind, may_hold_source=job.in_place, make=not dry_run)
        todo, kept, rebinned = _compare(job)
        total = sum(len(sequence.windows) for sequence, _ in todo)
        if not dry_run:
            if on_progress is not None:
                on_progress(0, total, "")
            if job.kind != "npy":
                write_splits(job.store, {s.seq: s.split for s in manifest.sequences})
            for record in rebinned:
                rewrite_record(job.store, record.model_copy(update={"bins": bins}))
            _run(job, todo, total, workers, scheduler, on_progress)
    done = job.done
    return VoxelizeSummary(
        store=str(store),
        format=format,
        kind=job.kind,
        bins=bins,
        sequences_written=len(todo),
        sequences_kept=kept,
        windows=total,
        bytes_in=done.bytes_in,
        bytes_counts=done.bytes_counts,
        bytes_out=done.bytes_out,
        bytes_voxels=done.bytes_voxels,
        seconds=time.perf_counter() - begun,
        dry_run=dry_run,
    )


def _kind(format: str, kind: str | None, store: Place) -> Kind:
    if format not in ("zarr", "npy"):
        raise StoreError(f"format {format!r} is not known; give zarr or npy")
    if kind is not None and kind not in KINDS:
        raise StoreError(f"kind {kind!r} is not known; give {' or '.join(KINDS)}")
    if format == "npy":
        if kind is not None or not store.is_local:
            raise StoreError("format npy is for local folders and has no other kinds; leave --kind")
        return "npy"
    found = root_kind(store)
    for known in KINDS:
        if known in (kind, found if kind is None else None):
            return known
    return KINDS[0]


def _codec(name: str | None, kind: Kind) -> Codec:
    if name is None:
        return CODECS[0]
    if kind != "counts":
        raise StoreError(
            f"a codec is for counts, this is kind {kind}; leave --codec, or give "
            "--kind counts and another store"
        )
    for known in CODECS:
        if name == known:
            return known
    raise StoreError(f"codec {name!r} is not known; give {', '.join(CODECS)}")


def _require_folder_splits(manifest: Manifest) -> None:
    """Refuse splits that the unified layout, where the folder is the split, can't say."""
    moved = [s for s in manifest.sequences if s.split != s.folder_split]
    if moved:
        raise StoreError(
            f"{moved[0].seq} and {len(moved) - 1} more are in another split than their folders "
            "say, which the unified layout can't express; take --format zarr, or undo it with "
            "`spikedeblur split --by folders`"
        )


@dataclass(slots=True)
class _Totals:
    bytes_in: int = 0
    bytes_counts: int = 0
    bytes_out: int = 0
    bytes_voxels: int = 0


@dataclass(kw_only=True, slots=True)
class _Job:
    manifest: Manifest
    manifest_path: Path
    root: Path
    store: Place
    kind: Kind
    bins: int
    codec: Codec
    overwrite: bool
    done: _Totals = field(default_factory=_Totals)

    @property
    def in_place(self) -> bool:
        """Whether voxels go beside the spikes they are made from."""
        if self.kind != "npy" or self.manifest.layout != "unified":
            return False
        return Path(self.store.location).resolve() == self.root.resolve()


_Seen = dict[str, FileRecord]


def _compare(
    job: _Job,
) -> tuple[list[tuple[Sequence, _Seen]], int, list[SequenceRecord]]:
    """Return the sequences to make, with what their files are now, and how many are kept.

    Of those kept, the third are the records that name other bins: in kind packed that is all
    that must change.
    """
    todo: list[tuple[Sequence, _Seen]] = []
    rebinned: list[SequenceRecord] = []
    kept = 0
    for sequence in job.manifest.sequences:
        seen = _look(job, sequence)
        folder = job.store.child(sequence.seq)
        record = read_record(folder, job.kind)
        if record is not None and record.complete is not None:
            why = _difference(job, sequence, record, seen)
            if why is None:
                kept += 1
                if record.bins != job.bins:
                    rebinned.append(record)
                continue
            if not job.overwrite:
                raise StoreError(
                    f"{job.store}: {sequence.seq} is there already, made from something else "
                    f"({why}); use --overwrite, or another store"
                )
        elif record is None and not job.overwrite and _holds_data(folder, job):
            raise StoreError(
                f"{folder}: expected nothing or a sequence that `voxelize` wrote, found other "
                "files; use --overwrite to replace them, or another store"
            )
        _require_aligned(job, sequence, seen)
        todo.append((sequence, seen))
    return todo, kept, rebinned


def _look(job: _Job, sequence: Sequence) -> _Seen:
    seen: _Seen = {}
    paths = all_inside(job.root, sequence.files, job.manifest_path)
    for relative, recorded in sequence.files.items():
        path = paths[relative]
        try:
            stat = os.stat(path)  # noqa: PTH116  # a Path costs more than looking
        except OSError as error:
            raise StoreError(
                f"{sequence.seq}: {path} is in the manifest but can't be read "
                f"({error.strerror}); restore it, or run `spikedeblur align` again"
            ) from error
        seen[relative] = recorded.model_copy(
            update={"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        )
    return seen


def _difference(job: _Job, sequence: Sequence, record: SequenceRecord, seen: _Seen) -> str | None:
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
        if now.mtime_ns != mark.mtime_ns and sha256_file(job.root / relative) != mark.sha256:
            return f"another {relative}"
    there = job.store.child(record.seq).sizes_of(record.complete.files)
    for name, size in record.complete.files.items():
        if there.get(name) != size:
            return f"{name} is missing or cut"
    return None


def _require_aligned(job: _Job, sequence: Sequence, seen: _Seen) -> None:
    """Refuse files that are not what `align` saw."""
    for relative, recorded in sequence.files.items():
        now = seen[relative]
        if (now.size, now.mtime_ns) == (recorded.size, recorded.mtime_ns):
            continue
        same_content = (
            now.size == recorded.size
            and recorded.sha256 is not None
            and sha256_file(job.root / relative) == recorded.sha256
        )
        if not same_content:
            raise StoreError(
                f"{sequence.seq}: {relative} changed since it was aligned; run "
                "`spikedeblur align` again"
            )


def _holds_data(folder: Place, job: _Job) -> bool:
    return bool(folder.sizes(NPY_MARK.rpartition("/")[0] if job.in_place else ""))


def _run(
    job: _Job,
    todo: list[tuple[Sequence, _Seen]],
    total: int,
    workers: int | None,
    scheduler: str | None,
    on_progress: Progress | None,
) -> None:
    manifest_sha256 = sha256_file(job.manifest_path)
    open_plans: dict[str, _Progressing] = {}

    def tasks() -> Iterator[ShardTask]:
        for sequence, seen in todo:
            plan = _plan(job, sequence, seen)
            _prepare(job, plan)
            open_plans[plan.seq] = _Progressing(plan)
            yield from plan.tasks

    windows = 0
    taken = Throughput()
    for result in run_tasks(
        write_shard,
        tasks(),
        workers=workers,
        scheduler=scheduler,
        describe=lambda task: task.record.seq,
        size=lambda task: task.nbytes,
    ):
        progressing = open_plans[result.seq]
        progressing.add(result)
        if progressing.missing == 0:
            _finish(job, progressing, manifest_sha256)
            del open_plans[result.seq]
        windows += result.windows
        note = f"{taken(result.bytes_in)} of spikes, {result.seq}"
        if on_progress is not None:
            on_progress(windows, total, note)


class _Progressing:
    """A sequence of which some shards are written."""

    def __init__(self, plan: SequencePlan) -> None:
        self.plan = plan
        self.files: dict[str, int] = {}
        self.sha256: dict[str, str] = {}
        self.bytes_in = 0
        self.missing = len(plan.tasks)

    def add(self, result: ShardResult) -> None:
        self.files.update(result.files)
        self.sha256.update(result.sha256)
        self.bytes_in += result.bytes_in
        self.missing -= 1


def _plan(job: _Job, sequence: Sequence, seen: _Seen) -> SequencePlan:
    if not sequence.windows:
        raise StoreError(f"{sequence.seq}: the manifest has no window of it; run `align` again")
    blur = inside(job.root, sequence.windows[0].blur, job.manifest_path)
    return plan_sequence(
        sequence,
        store=job.store.location,
        root=str(job.root),
        kind=job.kind,
        bins=job.bins,
        frame_shape=image_shape(blur),
        seen=seen,
        codec=job.codec,
        only_voxels=job.in_place,
    )


def _prepare(job: _Job, plan: SequencePlan) -> None:
    """Clear what a killed or former run left of a sequence, and begin it."""
    record = plan.record
    if not job.in_place:
        job.store.remove(record.seq)
    begin_sequence(job.store, record)
    if job.kind != "npy" or job.in_place:
        return
    geometry = plan.tasks[0].geometry
    height, width = geometry.shape
    cut = SpikeGeometry(
        height=height,
        width=width,
        flip_rows=geometry.flip_rows,
        pad_frames=geometry.pad_frames,
    )
    folder = Path(job.store.location, record.seq, "spike")
    folder.mkdir(parents=True, exist_ok=True)
    side = SideFile(geometry=cut.describe(), rate=record.rate, gain=record.gain)
    write_folder_side_file(folder, side)


def _finish(job: _Job, progressing: _Progressing, manifest_sha256: str) -> None:
    plan = progressing.plan
    seen = {source.path: source for task in plan.tasks for source in task.sources}
    completion = Completion(
        files=dict(sorted(progressing.files.items())),
        sources={
            path: SourceMark(size=seen[path].size, mtime_ns=seen[path].mtime_ns, sha256=sha256)
            for path, sha256 in sorted(progressing.sha256.items())
        },
        manifest_sha256=manifest_sha256,
    )
    mark_complete(job.store, plan.record, completion)
    done = job.done
    done.bytes_in += progressing.bytes_in
    done.bytes_counts += plan.record.windows * plan.record.voxel_bytes
    done.bytes_out += sum(progressing.files.values())
    done.bytes_voxels += sum(
        size
        for name, size in progressing.files.items()
        if name.startswith(("spikes/", "voxels/", "spike_vox/"))
    )
