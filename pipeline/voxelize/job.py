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
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence, Manifest
from ..host.reporter import Progress, Throughput
from ..spikes.geometry import SpikeGeometry
from ..spikes.sidefile import SideFile, write_folder_side_file
from ..storage.base import Storage, StoreError
from ..storage.locate import open_storage
from ..store.arrays import Codec
from ..store.records import (
    NPY_MARK,
    begin_sequence,
    claim_store,
    exclusive,
    mark_complete,
    read_record,
    rewrite_record,
    root_kind,
    write_parents,
    write_splits,
)
from ..store.schema import Completion, Kind, SourceMark
from .compare import Failure, OnError, Seen, VoxelizeJob, compare
from .estimate import Estimate, estimate
from .plan import SequencePlan, ShardTask, plan_sequence
from .sources import open_manifest
from .task import ShardResult, try_shard, write_shard
from .workers import run_tasks

KINDS: tuple[Kind, ...] = ("packed", "counts")
"""What a Zarr store can hold; the first is the default."""

CODECS: tuple[Codec, ...] = ("lz4", "zstd", "none")
"""How counts can be compressed, by Blosc; the first is the default."""

CLUSTERS = ("slurm",)
"""What can be asked for workers."""


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
    estimate: Estimate | None = None
    """Of a dry run: what the rest would take; None where there is nothing to measure it with."""
    failed: tuple[Failure, ...] = ()
    """Sequences that could not be made; the store has nothing of them that it hadn't whole."""

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
            "estimate": None if self.estimate is None else self.estimate.as_dict(),
        }


def voxelize_manifest(
    manifest_path: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    bins: int = 32,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    format: str = "zarr",
    kind: str | None = None,
    codec: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    check: bool = False,
    on_error: OnError = "stop",
    on_progress: Progress | None = None,
) -> VoxelizeSummary:
    """Write voxel counts, frames and times of a manifest's sequences to a store.

    Args:
        manifest_path: as `align` wrote it; a path or a URL.
        store: folder or URL (s3://, gs://, az://); new, or a store that this function wrote.
        bins: K, temporal bins a window.
        workers: processes, or jobs of a cluster; None: one a core, as far as memory holds them;
            1: this process.
        scheduler: address of a running Dask scheduler, whose workers see the same paths. Its
            certificates are dask's configuration, distributed.comm.tls.
        cluster: slurm: `workers` are jobs that are submitted there; None: this machine.
        format: zarr, or npy for the unified layout's files.
        kind: of a Zarr store: packed, the spikes themselves, counted when they are read, or
            counts. None: as the store there is, packed in a new one.
        codec: of kind counts: lz4 (where None), zstd, or none, which is read fastest and takes
            most space. It makes no sequence anew: a store may hold several.
        overwrite: make sequences anew that are there, complete, and differ.
        dry_run: check and plan only, and measure what it would take.
        check: read back what is complete, and make anew what is damaged.
        on_error: stop at a sequence that can't be made, or skip it and report it.
        on_progress: called with windows done, windows in all, and the sequence's name.

    Raises:
        StoreError: another store is there, or it can't be written; and unless failures are
            skipped: a sequence differs, a source changed since it was aligned, or a shard failed.
            What is complete stays.
    """
    begun = time.perf_counter()
    if bins < 1 or (workers is not None and workers < 1):
        raise StoreError(f"expected bins and workers of 1 or more, got {bins} and {workers}")
    _require_cluster(cluster, workers, scheduler)
    storage = open_storage(store)
    kind_ = _kind(format, kind, storage, check)
    manifest, sources, manifest_sha256 = open_manifest(manifest_path)
    if kind_ == "npy":
        _require_folder_splits(manifest)
    job = VoxelizeJob(
        manifest=manifest,
        manifest_sha256=manifest_sha256,
        sources=sources,
        store=storage,
        kind=kind_,
        bins=bins,
        codec=_codec(codec, kind_),
        overwrite=overwrite,
        check=check,
        on_error=on_error,
    )
    done = _Totals()
    claim_store(job.store, job.kind, may_hold_source=job.in_place, make=False, mend=check)
    with nullcontext() if dry_run else exclusive(job.store):
        claim_store(job.store, job.kind, may_hold_source=job.in_place, make=not dry_run, mend=check)
        if not dry_run:
            _sweep(job)
        found = compare(job)
        failures = list(found.failures)
        total = sum(len(sequence.windows) for sequence, _ in found.todo)
        expected = None
        if dry_run and job.kind != "npy":
            expected, more = estimate(job, found.todo, _plan)
            if more and on_error == "stop":
                raise StoreError(more[0].error)
            failures += more
        if not dry_run:
            if on_progress is not None:
                on_progress(0, total, "")
            if job.kind != "npy":
                write_splits(job.store, {s.seq: s.split for s in manifest.sequences})
            for record in found.kept:
                if check and job.kind != "npy":
                    write_parents(job.store, record.seq)
                if record.bins != bins:
                    rewrite_record(job.store, record.model_copy(update={"bins": bins}))
            failures += _run(job, found.todo, total, done, workers, scheduler, cluster, on_progress)
            for failure in failures:
                _withdraw_unfinished(job, failure.seq)
    return VoxelizeSummary(
        store=str(store),
        format=format,
        kind=job.kind,
        bins=bins,
        sequences_written=len(found.todo) + len(found.failures) - len(failures),
        sequences_kept=len(found.kept),
        windows=total if dry_run else done.windows,
        bytes_in=done.bytes_in,
        bytes_counts=done.bytes_counts,
        bytes_out=done.bytes_out,
        bytes_voxels=done.bytes_voxels,
        seconds=time.perf_counter() - begun,
        dry_run=dry_run,
        estimate=expected,
        failed=tuple(sorted(failures, key=lambda failure: failure.seq)),
    )


def _require_cluster(cluster: str | None, workers: int | None, scheduler: str | None) -> None:
    if cluster is None:
        return
    if cluster not in CLUSTERS:
        raise StoreError(f"cluster {cluster!r} is not known; give {' or '.join(CLUSTERS)}")
    if workers is None or scheduler is not None:
        raise StoreError(
            f"cluster {cluster} needs a number of jobs and no scheduler; give --workers, and "
            "leave --scheduler"
        )


def _kind(format: str, kind: str | None, store: Storage, check: bool) -> Kind:
    if format not in ("zarr", "npy"):
        raise StoreError(f"format {format!r} is not known; give zarr or npy")
    if kind is not None and kind not in KINDS:
        raise StoreError(f"kind {kind!r} is not known; give {' or '.join(KINDS)}")
    if format == "npy":
        if kind is not None or not store.is_local:
            raise StoreError("format npy is for local folders and has no other kinds; leave --kind")
        return "npy"
    try:
        found = root_kind(store)
    except StoreError:
        if not check:
            raise
        found = None
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
    windows: int = 0
    bytes_in: int = 0
    bytes_counts: int = 0
    bytes_out: int = 0
    bytes_voxels: int = 0


def _sweep(job: VoxelizeJob) -> None:
    """Clear what killed runs left beside sequences."""
    folders = {""}
    for sequence in job.manifest.sequences:
        parts = sequence.seq.split("/")
        folders.update("/".join(parts[:i]) for i in range(1, len(parts)))
        if job.in_place:
            folders.add(f"{sequence.seq}/{NPY_MARK.rpartition('/')[0]}")
    for folder in sorted(folders):
        job.store.sweep(folder)


def _run(
    job: VoxelizeJob,
    todo: list[tuple[AlignedSequence, Seen]],
    total: int,
    done: _Totals,
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    on_progress: Progress | None,
) -> list[Failure]:
    """Make the sequences; returns those that failed, if that doesn't stop the job."""
    open_plans: dict[str, _Progressing] = {}
    failures: dict[str, Failure] = {}

    def tasks() -> Iterator[ShardTask]:
        for sequence, seen in todo:
            try:
                plan = _plan(job, sequence, seen)
            except SpikeDeblurError as error:
                if job.on_error == "stop":
                    raise
                failures[sequence.seq] = Failure(seq=sequence.seq, error=str(error))
                continue
            _prepare(job, plan)
            open_plans[plan.seq] = _Progressing(plan)
            yield from plan.tasks

    skip = job.on_error == "skip"
    looked_at = 0
    taken = Throughput()
    for result in run_tasks(
        try_shard if skip else write_shard,
        tasks(),
        workers=workers,
        scheduler=scheduler,
        cluster=cluster,
        describe=lambda task: task.record.seq,
        size=lambda task: task.nbytes,
        on_lost=(lambda task, why: Failure(seq=task.record.seq, error=why)) if skip else None,
    ):
        if isinstance(result, Failure):
            failures.setdefault(result.seq, result)
            continue
        progressing = open_plans[result.seq]
        progressing.add(result)
        if progressing.missing == 0:
            _finish(job, progressing, done)
            del open_plans[result.seq]
        looked_at += result.windows
        note = f"{taken(result.bytes_in)} of spikes, {result.seq}"
        if on_progress is not None:
            on_progress(looked_at, total, note)
    return list(failures.values())


def _withdraw_unfinished(job: VoxelizeJob, seq: str) -> None:
    """Take away a part of a sequence that failed: readers would refuse the whole store."""
    try:
        record = read_record(job.store.child(seq), job.kind)
    except StoreError:
        return  # not begun by this run, which would have replaced it
    if record is None or record.complete is not None:
        return
    part = NPY_MARK.rpartition("/")[0] if job.in_place else ""
    job.store.remove("/".join(filter(None, (seq, part))))


class _Progressing:
    """A sequence of which some shards are written."""

    def __init__(self, plan: SequencePlan) -> None:
        self.plan = plan
        self.files: dict[str, int] = {}
        self.crc32: dict[str, str] = {}
        self.sha256: dict[str, str] = {}
        self.bytes_in = 0
        self.missing = len(plan.tasks)

    def add(self, result: ShardResult) -> None:
        self.files.update(result.files)
        self.crc32.update(result.crc32)
        self.sha256.update(result.sha256)
        self.bytes_in += result.bytes_in
        self.missing -= 1


def _plan(job: VoxelizeJob, sequence: AlignedSequence, seen: Seen) -> SequencePlan:
    if not sequence.windows:
        raise StoreError(f"{sequence.seq}: the manifest has no window of it; run `align` again")
    return plan_sequence(
        sequence,
        store=job.store.location,
        root=job.sources.root.location,
        kind=job.kind,
        bins=job.bins,
        frame_shape=job.sources.frame_shape(sequence.windows[0].blur),
        seen=seen,
        codec=job.codec,
        only_voxels=job.in_place,
    )


def _prepare(job: VoxelizeJob, plan: SequencePlan) -> None:
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


def _finish(job: VoxelizeJob, progressing: _Progressing, done: _Totals) -> None:
    plan = progressing.plan
    seen = {source.path: source for task in plan.tasks for source in task.sources}
    completion = Completion(
        files=dict(sorted(progressing.files.items())),
        crc32=dict(sorted(progressing.crc32.items())),
        sources={
            path: SourceMark(size=seen[path].size, mtime_ns=seen[path].mtime_ns, sha256=sha256)
            for path, sha256 in sorted(progressing.sha256.items())
        },
        manifest_sha256=job.manifest_sha256,
    )
    for folder in sorted({name.rpartition("/")[0] for name in progressing.files}):
        job.store.sweep(f"{plan.seq}/{folder}", own=True)  # what a worker left that was killed
    mark_complete(job.store, plan.record, completion)
    done.windows += plan.record.windows
    done.bytes_in += progressing.bytes_in
    done.bytes_counts += plan.record.windows * plan.record.voxel_bytes
    done.bytes_out += sum(progressing.files.values())
    done.bytes_voxels += sum(
        size
        for name, size in progressing.files.items()
        if name.startswith(("spikes/", "voxels/", "spike_vox/"))
    )
