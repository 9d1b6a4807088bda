"""Writing of one shard: the function that Dask maps. It needs no Dask."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass

import numpy as np

from ...errors import SpikeDeblurError
from ..storage.base import StoreError, StoreWriteError
from ..storage.checksum import SummedFiles
from ..storage.locate import open_storage
from ..store.arrays import METADATA, ArraySpec
from ..store.schema import SENSOR_MAPS, SHARP_INSTANTS, Completion, SourceMark
from ..store.write import array_files, scratch
from .notes import ShardResult, note
from .npy import write_windows
from .plan import SequencePlan, ShardTask
from .sources import TaskSources, changed_since_aligned, open_sources

ATTEMPTS = 3
"""Tries of a shard whose disk or network failed in a way that may pass."""

_PASSING = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.ENETDOWN}


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A sequence that could not be made."""

    seq: str
    error: str
    """Message that names the file, what was wrong and what to do."""


class SequenceProgress:
    """A sequence of which some shards are written."""

    def __init__(self, plan: SequencePlan) -> None:
        self.plan = plan
        self.files: dict[str, int] = {}
        self.windows = 0
        """Windows that this run wrote."""
        self.bytes_in = 0
        """Packed spike bytes that this run read."""
        self.bytes_out: dict[str, int] = {}
        """Size in bytes of each file that this run wrote."""
        self.missing = len(plan.tasks)
        """Shards that are not yet written."""
        self._crc32: dict[str, str] = {}
        self._hashes: dict[str, dict[int, str]] = {}

    def add(self, result: ShardResult, *, before: bool = False) -> None:
        """Take the result of one shard, which this run wrote or one before."""
        self.files.update(result.files)
        self.missing -= 1
        self._crc32.update(result.crc32)
        for path, hashes in result.hashes.items():
            self._hashes.setdefault(path, {}).update(hashes)
        if not before:
            self.windows += result.windows
            self.bytes_in += result.bytes_in
            self.bytes_out.update(result.files)

    def completion(self, manifest_sha256: str) -> Completion:
        """Return the completion mark; before all shards are written, as an estimate needs it.

        Raises:
            StoreError: all are, and a source is not what `align` saw.
        """
        seen = {source.path: source for task in self.plan.tasks for source in task.sources}
        sources = {}
        for path, hashes in sorted(self._hashes.items()):
            source = seen[path]
            sha256 = source.form.joined(digest for _, digest in sorted(hashes.items()))
            if self.missing == 0 and source.sha256 not in (None, sha256):
                raise changed_since_aligned(self.plan.record.seq, path)
            sources[path] = SourceMark(
                size=source.size,
                mtime_ns=source.mtime_ns,
                sha256=sha256,
                piece=source.form.piece,
                part=source.form.part,
            )
        return Completion(
            files=dict(sorted(self.files.items())),
            crc32=dict(sorted(self._crc32.items())),
            sources=sources,
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
            result = _write(task)
            if task.noted:
                note(open_storage(task.target.store), task, result)
            return result
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
    sources.hash_rest()
    read = task.clipped_runs() if task.record.kind == "packed" else task.windows
    return ShardResult(
        seq=task.record.seq,
        windows=len(task.windows),
        files={key: size for key, size in files.sizes.items() if not key.endswith(METADATA)},
        crc32=files.crc32,
        hashes={path: hashes for path, hashes in sources.hashes.items() if hashes},
        bytes_in=sum(run.stop - run.start for run in read) * task.geometry.frame_bits // 8,
    )


def _write_arrays(task: ShardTask, sources: TaskSources, files: SummedFiles) -> None:
    for spec, values in task.small:
        _write_array(files, spec, 0, np.array(values, spec.dtype))
    if task.sensor is not None:
        maps: tuple[np.ndarray, ...] = (task.sensor.gain, task.sensor.dark, task.sensor.flaws)
        for name, plane in zip(SENSOR_MAPS, maps, strict=True):
            _write_array(files, task.record.specs[name], 0, plane)
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


def _gather_spikes(task: ShardTask, sources: TaskSources, out: np.ndarray) -> None:
    for run in task.clipped_runs():
        part = out[run.at - task.start : run.end - task.start]
        sources.spikes(run.path, run.start, run.stop).packed(run.start, run.stop, part)


def _count_windows(task: ShardTask, sources: TaskSources, out: np.ndarray) -> None:
    for window, counts in zip(task.windows, out, strict=True):
        file = sources.spikes(window.spikes, window.start, window.stop)
        file.counts(task.record.bins, window.start, window.stop, out=counts)
