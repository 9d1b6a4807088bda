"""The voxelize job: it writes a manifest's sequences to a store, whole sequences only.

    manifest --compare with what is there--> sequences to make --plan--> tasks
    tasks --Dask or this process--> shards --all of a sequence there--> completion mark

A killed run continues when started again: sequences with a mark are kept, and of the others the
shards that `notes` tells of. A script that calls this with several workers needs the usual
`if __name__ == "__main__":`, because worker processes are spawned.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence
from ..align.part import cut_manifest
from ..host.files import StrPath
from ..host.reporter import SILENT, Parts, Reporter, Throughput
from ..storage.base import Storage, StoreError, StoreWriteError
from ..storage.locate import open_storage
from ..store.records import (
    NPY_VOXELS,
    begin_sequence,
    drop_consolidated,
    exclusive,
    lacks_root,
    mark_complete,
    read_record,
    root_kind,
    write_parents,
    write_record,
    write_root,
    write_splits,
)
from ..store.schema import Kind
from .compare import Compared, Seen, VoxelizeJob, compare
from .estimate import Estimate, estimate
from .notes import ShardResult, noted, work_folder
from .npy import require_folder_splits, write_side_file
from .options import ZARR_KINDS, VoxelizeOptions
from .plan import ShardTask
from .sources import open_manifest
from .task import Failure, SequenceProgress, try_shard, write_shard
from .work import GUESSES, work_of
from .workers import Workers, run_tasks


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelizeSummary:
    """Result of a run."""

    store: str
    format: str
    kind: Kind
    bins: int
    sequences_written: int
    sequences_kept: int
    """Sequences that were complete already and unchanged."""
    sequences_continued: int
    """Sequences among those written of which a stopped run had left shards."""
    shards_kept: int
    """Tasks of these sequences, of a shard of each array, that were done already."""
    bytes_kept: int
    """Bytes of the files of these shards."""
    windows: int
    """Windows written by this run."""
    bytes_in: int
    """Bytes of packed spikes of the windows written."""
    bytes_counts: int
    """Bytes of the counts of the windows written, in memory."""
    bytes_out: int
    """Bytes of the files written, images included."""
    bytes_voxels: int
    """Bytes of the files of spikes or voxels among `bytes_out`."""
    seconds: float
    dry_run: bool
    """Whether nothing was written; windows and sequences are then what would be."""
    estimate: Estimate | None
    """Estimate by a dry run; None: not a dry run, or nothing to measure."""
    left_out: int
    """Frames that are not exposed wholly in the part of the recordings that is read."""
    failed: tuple[Failure, ...]
    """Sequences that could not be made, by name. The store has no part of them."""
    splits: dict[str, int]
    """Number of the manifest's sequences in each split."""
    scenes: int
    """Number of the manifest's scenes outside the test split."""

    @property
    def compression(self) -> float | None:
        """`bytes_counts` over `bytes_voxels`; None if none were written."""
        return self.bytes_counts / self.bytes_voxels if self.bytes_voxels else None

    @property
    def windows_per_second(self) -> float | None:
        """Windows a second, start of workers included; None if none were written."""
        return self.windows / self.seconds if self.windows and not self.dry_run else None

    def as_dict(self) -> dict[str, object]:
        """Return all figures, derived ones too, for JSON."""
        return asdict(self) | {
            "compression": self.compression,
            "windows_per_second": self.windows_per_second,
            "estimate": None if self.estimate is None else self.estimate.as_dict(),
        }


def voxelize_manifest(
    manifest_path: StrPath,
    store: StrPath,
    options: VoxelizeOptions = VoxelizeOptions(),  # noqa: B008  # frozen
    workers: Workers = Workers(),  # noqa: B008
    *,
    reporter: Reporter = SILENT,
) -> VoxelizeSummary:
    """Write spikes or voxel counts, frames and times of a manifest's sequences to a store.

    Args:
        manifest_path: manifest that `align` wrote; a path or a URL.
        store: folder or URL (s3://, gs://, az://); new, or a store that this function wrote.
        options: choices of what is written.
        workers: processes that do the work.
        reporter: hears windows done, windows in all, throughput and the sequence's name.

    Raises:
        StoreError: another store is there, or it can't be written; and unless errors are
            skipped: a sequence differs, a source changed since it was aligned, or a shard failed.
            What is complete stays.
    """
    begun = time.perf_counter()
    job = _open_job(manifest_path, open_storage(store), options)

    lacks = partial(
        lacks_root, job.store, job.kind, may_hold_source=job.in_place, mend=options.check
    )
    lacks()  # refuses a foreign place before anything is written there, the lock included
    splits = {sequence.split for sequence in job.manifest.sequences}
    if "train" in splits and "val" not in splits and job.kind != "npy":
        reporter.note(
            f"{manifest_path}: no sequences of the split val, which training validates on; "
            f"`spikedeblur split {manifest_path}` deals whole scenes out to it"
        )
    written, foretold = _Written(), None
    if options.dry_run:
        compared, foretold = _foretell(job, written)
    else:
        with exclusive(job.store):
            if lacks():
                write_root(job.store, job.kind)
            compared = _make(job, written, workers, reporter)
    return VoxelizeSummary(
        store=str(store),
        format=options.format,
        kind=job.kind,
        bins=options.bins,
        sequences_written=sum(s.seq not in compared.failures for s, _ in compared.todo),
        sequences_kept=len(compared.kept),
        **asdict(written),
        seconds=time.perf_counter() - begun,
        dry_run=options.dry_run,
        estimate=foretold,
        left_out=job.left_out,
        failed=tuple(compared.failures[seq] for seq in sorted(compared.failures)),
        splits=dict(Counter(sequence.split for sequence in job.manifest.sequences)),
        scenes=len({s.scene_name for s in job.manifest.sequences if s.split != "test"}),
    )


def _open_job(manifest_path: StrPath, store: Storage, options: VoxelizeOptions) -> VoxelizeJob:
    kind = _kind(store, options)
    manifest, sources, manifest_sha256 = open_manifest(manifest_path)
    left_out = 0
    if options.between is not None:
        if not sources.root.is_local:
            raise StoreError(
                f"{sources.root}: a bucket's recordings are fetched whole, so --from and --to save "
                "nothing there; leave them out, or copy the data set to a folder"
            )
        manifest, left_out = cut_manifest(manifest, Path(sources.root.location), options.between)
    if kind == "npy":
        require_folder_splits(manifest)
    if options.codec is not None and kind != "counts":
        raise StoreError(
            f"a codec is for counts, this is kind {kind}; leave --codec, or give "
            "--kind counts and another store"
        )
    return VoxelizeJob(
        manifest=manifest,
        manifest_sha256=manifest_sha256,
        sources=sources,
        store=store,
        kind=kind,
        options=options,
        left_out=left_out,
    )


def _kind(store: Storage, options: VoxelizeOptions) -> Kind:
    if options.format == "npy":
        if not store.is_local:
            raise StoreError(f"{store}: format npy is for local folders; give a folder")
        return "npy"
    kind = options.kind
    if kind is None:
        try:
            kind = root_kind(store)
        except StoreError:
            if not options.check:
                raise
    return cast(Kind, kind) if kind in ZARR_KINDS else "packed"


@dataclass(slots=True)
class _Written:
    """Totals of the sequences written so far; see `VoxelizeSummary`."""

    windows: int = 0
    bytes_in: int = 0
    bytes_counts: int = 0
    bytes_out: int = 0
    bytes_voxels: int = 0
    sequences_continued: int = 0
    shards_kept: int = 0
    bytes_kept: int = 0

    def add(self, done: SequenceProgress) -> None:
        """Count a sequence that is complete."""
        record = done.plan.record
        self.windows += done.windows
        self.bytes_in += done.bytes_in
        self.bytes_counts += done.windows * record.voxel_bytes
        self.bytes_out += sum(done.bytes_out.values())
        voxels = ("spikes/", "voxels/", f"{NPY_VOXELS}/")
        self.bytes_voxels += sum(n for key, n in done.bytes_out.items() if key.startswith(voxels))

    def keep(self, done: Iterable[ShardResult]) -> None:
        """Count the shards that a stopped run left of a sequence, if any."""
        sizes = [sum(result.files.values()) for result in done]
        self.sequences_continued += bool(sizes)
        self.shards_kept += len(sizes)
        self.bytes_kept += sum(sizes)


def _foretell(job: VoxelizeJob, written: _Written) -> tuple[Compared, Estimate | None]:
    """Return what would be written, and an estimate of the time and disk space."""
    compared = compare(job)
    written.windows = compared.windows
    for sequence, seen in compared.todo:
        if sequence.seq not in compared.begun:
            continue
        try:
            done = noted(job.store, job.plan(sequence, seen), check=job.options.check)
        except SpikeDeblurError:
            continue  # the estimate says what is wrong
        written.keep(done.values())
        written.windows -= sum(result.windows for result in done.values())
    if job.kind == "npy":
        return compared, None
    foretold, failures = estimate(job, compared.todo)
    if foretold is not None and written.bytes_kept:
        foretold = foretold.less(written.bytes_kept)
    if failures and job.options.on_error == "stop":
        raise StoreError(failures[0].error)
    compared.failures.update((failure.seq, failure) for failure in failures)
    return compared, foretold


def _make(job: VoxelizeJob, written: _Written, workers: Workers, reporter: Reporter) -> Compared:
    """Write all sequences that are not in the store yet."""
    _sweep(job)
    compared = compare(job)
    parts = Parts(reporter, compared.windows, GUESSES)
    if job.kind != "npy":
        grows = compared.todo or any(r.bins != job.options.bins for r in compared.kept)
        if grows and drop_consolidated(job.store):
            reporter.note(
                f"{job.store}: consolidated metadata removed, since they lack what is written now; "
                "run zarr.consolidate_metadata again if your reader wants them"
            )
        write_splits(job.store, {s.seq: s.split for s in job.manifest.sequences})
    for record in compared.kept:
        if job.store.is_local:  # a run was killed between the mark and this
            job.store.remove(work_folder(record))
        if job.options.check and job.kind != "npy":
            write_parents(job.store, record.seq)
        if record.bins != job.options.bins:
            write_record(job.store, record.model_copy(update={"bins": job.options.bins}))
    _run(job, compared, written, workers, parts, reporter)
    for seq in compared.failures:
        _withdraw_unfinished(job, seq)
    return compared


def _sweep(job: VoxelizeJob) -> None:
    """Remove what killed runs left beside sequences."""
    folders = {""}
    for sequence in job.manifest.sequences:
        parts = sequence.seq.split("/")
        folders.update("/".join(parts[:i]) for i in range(1, len(parts)))
        folders.add(f"{sequence.seq}/{NPY_VOXELS}" if job.kind == "npy" else sequence.seq)
    for folder in sorted(folders):
        job.store.sweep(folder)


def _run(
    job: VoxelizeJob,
    compared: Compared,
    written: _Written,
    workers: Workers,
    parts: Parts,
    reporter: Reporter,
) -> None:
    """Write the shards of the sequences to make, and mark each one that is complete."""
    under_way: dict[str, SequenceProgress] = {}
    works = {s.seq: work_of(s, seen, job.kind) for s, seen in compared.todo}
    parts.expect(sum((work.parts for work in works.values()), Counter()))
    throughput = Throughput()
    skip = job.options.on_error == "skip"

    def tasks(todo: list[tuple[AlignedSequence, Seen]]) -> Iterator[ShardTask]:
        for sequence, seen in todo:
            try:
                plan = job.plan(sequence, seen)
            except SpikeDeblurError as error:
                if not skip:
                    raise
                compared.failures[sequence.seq] = Failure(seq=sequence.seq, error=str(error))
                parts.skip(works[sequence.seq].parts, items=len(sequence.windows))
                continue
            if job.kind == "npy" and plan.record.sensor_sha256 is not None:
                reporter.warn(
                    f"{sequence.seq}: kind npy holds counts as recorded and has no sensor in it: "
                    "name it as `sensor` in spikes.json there, or voxelize to a store"
                )
            begun = sequence.seq in compared.begun
            done = noted(job.store, plan, check=job.options.check) if begun else {}
            written.keep(done.values())
            # Remains of a former run of other sources go first.
            if not job.in_place and not done:
                job.store.remove(sequence.seq)
            begin_sequence(job.store, plan.record)
            if job.kind == "npy" and not job.in_place:
                write_side_file(job.store, plan)
            progress = SequenceProgress(plan)
            for result in done.values():
                progress.add(result, before=True)
            under_way[sequence.seq] = progress
            if done:
                skip_done(sequence.seq, done.values())
            if progress.missing == 0:
                finish(progress)
            yield from (task for task in plan.tasks if task.number not in done)

    def finish(progress: SequenceProgress) -> None:
        seq = progress.plan.record.seq
        del under_way[seq]
        try:
            _finish(job, progress)
        except SpikeDeblurError as error:
            if not skip or isinstance(error, StoreWriteError):
                raise
            compared.failures[seq] = Failure(seq=seq, error=str(error))
            return
        written.add(progress)

    def skip_done(seq: str, done: Iterable[ShardResult]) -> None:
        sizes: Counter[str] = Counter()
        for result in done:
            sizes.update(dict([works[seq].part(result)]))
        parts.skip(sizes, seq, items=sum(result.windows for result in done))

    def lost(task: ShardTask, why: str) -> ShardResult | Failure:
        return Failure(seq=task.record.seq, error=why)

    for result in run_tasks(
        try_shard if skip else write_shard,
        tasks(compared.todo),
        workers,
        describe=lambda task: task.record.seq,
        size=lambda task: task.nbytes,
        on_lost=lost if skip else None,
    ):
        if isinstance(result, Failure):
            compared.failures.setdefault(result.seq, result)
            continue
        progress = under_way[result.seq]
        progress.add(result)
        if progress.missing == 0:
            finish(progress)
        kind, size = works[result.seq].part(result)
        note = f"{throughput(result.bytes_in)} of spikes, {result.seq}"
        parts.did(kind, note, size=size, finished=result.windows)


def _finish(job: VoxelizeJob, progress: SequenceProgress) -> None:
    record = progress.plan.record
    for folder in sorted({key.rpartition("/")[0] for key in progress.files}):
        job.store.sweep(f"{record.seq}/{folder}", own=True)  # what a killed worker left
    mark_complete(job.store, record, progress.completion(job.manifest_sha256))
    job.store.remove(work_folder(record))


def _withdraw_unfinished(job: VoxelizeJob, seq: str) -> None:
    """Remove a part of a sequence that failed, for which readers would refuse the whole store."""
    try:
        record = read_record(job.store.child(seq), job.kind)
    except StoreError:
        return  # left by another run: this one replaces what it begins
    if record is not None and record.complete is None:
        job.store.remove("/".join(filter(None, (seq, job.part))))
