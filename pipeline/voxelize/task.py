"""Writing of one shard: the function that Dask maps. It needs no Dask."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...errors import SpikeDeblurError
from ..storage.base import StoreError, StoreWriteError
from ..storage.checksum import SummedFiles
from ..storage.locate import open_storage
from ..store.arrays import METADATA, ArraySpec
from ..store.schema import SHARP_INSTANTS, Completion, SourceMark
from ..store.write import array_files, scratch
from .npy import write_windows
from .plan import SequencePlan, ShardTask, SpikeRun
from .sources import TaskSources, open_sources

ATTEMPTS = 3
"""Tries of a shard whose disk or network failed in a way that may pass."""

_PASSING = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.ENETDOWN}


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A sequence that could not be made."""

    seq: str
    error: str
    """Message that names the file, what was wrong and what to do."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Report of a written shard to the planner: tiny, so that it travels cheaply."""

    seq: str
    windows: int
    """Number of windows whose frames it holds."""
    files: dict[str, int]
    """Size in bytes of each file written, by path relative to the sequence's folder."""
    crc32: dict[str, str]
    """Checksum of each of these files, and of metadata."""
    sha256: dict[str, str]
    """SHA-256 of each source file that was read whole, by its path."""
    bytes_in: int
    """Packed spike bytes that were read."""


class SequenceProgress:
    """A sequence of which some shards are written."""

    def __init__(self, plan: SequencePlan) -> None:
        self.plan = plan
        self.files: dict[str, int] = {}
        self.bytes_in = 0
        self.missing = len(plan.tasks)
        """Shards that are not yet written."""
        self._crc32: dict[str, str] = {}
        self._sha256: dict[str, str] = {}

    def add(self, result: ShardResult) -> None:
        """Take the result of one shard."""
        self.files.update(result.files)
        self.bytes_in += result.bytes_in
        self.missing -= 1
        self._crc32.update(result.crc32)
        self._sha256.update(result.sha256)

    def completion(self, manifest_sha256: str) -> Completion:
        """Return the completion mark, once all shards are written."""
        seen = {source.path: source for task in self.plan.tasks for source in task.sources}
        return Completion(
            files=dict(sorted(self.files.items())),
            crc32=dict(sorted(self._crc32.items())),
            sources={
                path: SourceMark(size=seen[path].size, mtime_ns=seen[path].mtime_ns, sha256=sha256)
                for path, sha256 in sorted(self._sha256.items())
            },
            manifest_sha256=manifest_sha256,
        )


def write_shard(task: ShardTask) -> ShardResult:
    """Write one shard of each array that the task names.

    Raises:
        StoreError: a source changed since it was aligned, can't be used, or the store can't be
            written; names the sequence.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _write(task)
        except (SpikeDeblurError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if getattr(cause, "errno", None) in _PASSING and attempt < ATTEMPTS:
                time.sleep(0.5 * attempt)
                continue
            seq = task.record.seq
            if isinstance(error, SpikeDeblurError):
                kind = StoreWriteError if isinstance(error, StoreWriteError) else StoreError
                raise kind(str(error) if seq in str(error) else f"{seq}: {error}") from error
            raise StoreError(
                f"{seq}: can't read or write ({error}); check the disk, then run `voxelize` "
                "again: what is complete is kept"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def try_shard(task: ShardTask) -> ShardResult | Failure:
    """Write one shard as `write_shard` does, or return why it failed.

    Raises:
        StoreWriteError: the store can't be written.
    """
    try:
        return write_shard(task)
    except StoreWriteError:
        raise
    except SpikeDeblurError as error:
        return Failure(seq=task.record.seq, error=str(error))
    except Exception as error:  # a bug here or in a library: the other sequences are worth having
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        return Failure(seq=task.record.seq, error=f"{task.record.seq}: failed unforeseen ({what})")


def _write(task: ShardTask) -> ShardResult:
    sources = open_sources(task)
    files = SummedFiles(open_storage(task.target.store).child(task.record.seq))
    if task.record.kind == "npy":
        write_windows(task, sources, files)
    else:
        _write_arrays(task, sources, files)
    read = _clipped(task) if task.record.kind == "packed" else task.windows
    return ShardResult(
        seq=task.record.seq,
        windows=len(task.windows),
        files={key: size for key, size in files.sizes.items() if not key.endswith(METADATA)},
        crc32=files.crc32,
        sha256=sources.sha256,
        bytes_in=sum(run.stop - run.start for run in read) * task.geometry.frame_bits // 8,
    )


def _write_arrays(task: ShardTask, sources: TaskSources, files: SummedFiles) -> None:
    for spec, values in task.small:
        _write_array(files, spec, 0, np.array(values, spec.dtype))
    fill = {"spikes": _gather_spikes, "voxels": _count_windows}
    for spec in task.arrays:
        data = scratch("shard", (task.stop - task.start, *spec.shape[1:]), spec.dtype)
        if spec.name in fill:
            fill[spec.name](task, sources, data)
        elif spec.name == SHARP_INSTANTS:
            for window, frames in zip(task.windows, data, strict=True):
                for path, frame in zip(window.instants, frames, strict=True):
                    frame[...] = sources.image(path)
        else:
            for window, frame in zip(task.windows, data, strict=True):
                frame[...] = sources.image(getattr(window, spec.name))
        _write_array(files, spec, task.start, data)


def _write_array(files: SummedFiles, spec: ArraySpec, start: int, data: np.ndarray) -> None:
    for key, content in array_files(spec, start, data).items():
        # What is small need not wait for the disk: reading it compares its size and content.
        files.write(key, [content], durable=spec.shards is not None and not key.endswith(METADATA))


def _clipped(task: ShardTask) -> Iterator[SpikeRun]:
    """Yield the parts of the task's runs that lie in [task.start, task.stop) of `spikes`."""
    for run in task.runs:
        before, after = max(task.start - run.at, 0), max(run.end - task.stop, 0)
        start, stop = run.start + before, run.stop - after
        yield replace(run, start=start, stop=stop, at=run.at + before)


def _gather_spikes(task: ShardTask, sources: TaskSources, out: np.ndarray) -> None:
    for run in _clipped(task):
        part = out[run.at - task.start : run.end - task.start]
        sources.spikes(run.path, run.start, run.stop).packed(run.start, run.stop, part)


def _count_windows(task: ShardTask, sources: TaskSources, out: np.ndarray) -> None:
    for window, counts in zip(task.windows, out, strict=True):
        file = sources.spikes(window.spikes, window.start, window.stop)
        file.counts(task.record.bins, window.start, window.stop, out=counts)
