"""Making one shard: the function that Dask maps. It needs neither Dask nor Zarr itself."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import SpikeDeblurError
from ..frames.images import read_rgb
from ..host.files import atomic_write, inside, sha256_file
from ..spikes import SpikeFile
from ..spikes.clock import SpikeWindowError
from ..spikes.dat import write_spikes
from ..spikes.geometry import SpikeGeometry
from ..spikes.registration import RegisteredSpikes, open_spikes
from ..storage.base import StoreError, StoreWriteError
from ..storage.checksum import Checksum, checksum
from ..storage.locate import open_storage
from ..store.arrays import METADATA
from ..store.shard import encode_shard, scratch
from .compare import Failure
from .plan import ShardTask, SourceFile, SpikeRun
from .sources import at_hand

ATTEMPTS = 3
"""Of a shard, where the disk or the network failed in a way that may pass."""

_PASSING = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.ENETDOWN}


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What the planner must know of a written shard: tiny, so that it travels cheaply."""

    seq: str
    windows: int
    """Whose frames it holds."""
    files: dict[str, int]
    """Size in bytes of each file written, by path relative to the sequence's folder."""
    crc32: dict[str, str]
    """Checksum of each of these files, and of metadata."""
    sha256: dict[str, str]
    """By source path, for those that this task was to hash."""
    bytes_in: int
    """Packed spike bytes that it read."""


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
            kind = StoreWriteError if _of_writing(error, task) else StoreError
            if isinstance(error, SpikeDeblurError):
                raise kind(str(error) if seq in str(error) else f"{seq}: {error}") from error
            raise kind(
                f"{seq}: can't read or write ({error}); check the disk, then run `voxelize` "
                "again: what is complete is kept"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def try_shard(task: ShardTask) -> ShardResult | Failure:
    """Write one shard as `write_shard` does, or return why that can't be.

    Raises:
        StoreWriteError: the store can't be written.
    """
    try:
        return write_shard(task)
    except StoreWriteError:
        raise
    except SpikeDeblurError as error:
        return Failure(seq=task.record.seq, error=str(error))
    except Exception as error:  # ours or a library's fault: the other sequences are worth having
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        return Failure(seq=task.record.seq, error=f"{task.record.seq}: failed unforeseen ({what})")


def _of_writing(error: Exception, task: ShardTask) -> bool:
    if isinstance(error, OSError) and error.filename is not None:
        return str(error.filename).startswith(task.store.rstrip("/") + "/")
    return isinstance(error, StoreWriteError)


def _write(planned: ShardTask) -> ShardResult:
    with at_hand(planned) as task:
        return _write_from_folder(task)


def _write_from_folder(task: ShardTask) -> ShardResult:
    inputs = _Inputs(task)
    crc32: dict[str, str] = {}
    if task.record.kind == "npy":
        files = _write_npy(task, inputs, crc32)
    else:
        files = _write_arrays(task, inputs, crc32)
    read = list(_clipped(task))
    if task.record.kind != "packed":
        read += [SpikeRun(w.spikes, w.start, w.stop, 0) for w in task.windows]
    return ShardResult(
        seq=task.record.seq,
        windows=len(task.windows),
        files=files,
        crc32=crc32,
        sha256={source.path: inputs.sha256[source.path] for source in inputs.to_report},
        bytes_in=sum(run.stop - run.start for run in read) * task.geometry.frame_bits // 8,
    )


class _Inputs:
    """The task's source files: each is checked against the plan when first read."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._root = Path(task.root)
        self._expected = {source.path: source for source in task.sources}
        self._open: tuple[str, SpikeFile | RegisteredSpikes] | None = None
        self.sha256: dict[str, str] = {}
        self.to_report = [
            source
            for source in task.sources
            if source.hashed_here and not (task.only_voxels and not source.path.endswith(".dat"))
        ]
        for source in task.sources:
            _read_ahead(self._root / source.path)

    def path(self, relative: str) -> Path:
        return inside(self._root, relative, self._task.record.seq)

    def image(self, relative: str) -> np.ndarray:
        path = self.path(relative)
        self._check(relative, path, sha256_file(path))
        return read_rgb(path, self._task.record.frame_shape)

    def spikes(self, relative: str, start: int, stop: int) -> SpikeFile | RegisteredSpikes:
        """Open a recording, as the frames see it; make sure that it has samples [start, stop)."""
        if self._open is None or self._open[0] != relative:
            path = self.path(relative)
            hashed = self._expected[relative].hashed_here
            self._check(relative, path, sha256_file(path) if hashed else None)
            task = self._task
            self._open = relative, open_spikes(path, task.geometry, task.registration)
        file = self._open[1]
        if not 0 <= start < stop <= file.n_frames:
            raise SpikeWindowError(
                f"{file.path}: a window needs spike samples {start} to {stop - 1}, but the file "
                f"has 0 to {file.n_frames - 1}; run `align` again"
            )
        return file

    def _check(self, relative: str, path: Path, sha256: str | None) -> None:
        stat = path.stat()
        expected = self._expected[relative]
        require_unchanged(self._task.record.seq, expected, stat.st_size, stat.st_mtime_ns, sha256)
        if sha256 is not None:
            self.sha256[relative] = sha256


def _read_ahead(path: Path) -> None:
    """Let the system read a file while we work on the one before."""
    if not hasattr(os, "posix_fadvise"):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # whoever reads it says what is wrong
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


def require_unchanged(
    seq: str, expected: SourceFile, size: int, mtime_ns: int, sha256: str | None
) -> None:
    """Refuse a source that is not what was aligned and planned.

    Raises:
        StoreError: names the file.
    """
    differs = sha256 is not None and expected.sha256 is not None and sha256 != expected.sha256
    if differs or (size, mtime_ns) != (expected.size, expected.mtime_ns):
        raise StoreError(
            f"{seq}: {expected.path} changed since it was aligned; run `spikedeblur align` again"
        )


def _write_arrays(task: ShardTask, inputs: _Inputs, crc32: dict[str, str]) -> dict[str, int]:
    """Write the files; returns sizes, and notes checksums."""
    storage = open_storage(task.store).child(task.record.seq)
    sizes: dict[str, int] = {}
    for key, content in task.small_files:
        crc32[key] = checksum([content])
        # No need to wait for the disk: opening the store compares sizes.
        size = storage.write(key, [content], durable=False)
        if not key.endswith(METADATA):
            sizes[key] = size
    fill: dict[str, Callable[[np.ndarray], None]] = {
        "spikes": lambda out: _gather_spikes(task, inputs, out),
        "voxels": lambda out: _count_windows(task, inputs, out),
        "blur": lambda out: _read_frames([w.blur for w in task.windows], inputs, out),
        "sharp": lambda out: _read_frames([w.sharp for w in task.windows], inputs, out),
    }
    for spec in task.arrays:
        data = scratch("shard", (task.stop - task.start, *spec.shape[1:]), spec.dtype)
        fill[spec.name](data)
        key = spec.key(task.start // spec.per_file)
        passing = Checksum()
        sizes[key] = storage.write(key, passing.through(encode_shard(data, spec)))
        crc32[key] = str(passing)
    return sizes


def _clipped(task: ShardTask) -> Iterable[SpikeRun]:
    """Yield the parts of the task's runs that lie in [task.start, task.stop) of `spikes`."""
    for run in task.runs:
        before = max(task.start - run.at, 0)
        after = max(run.at + run.stop - run.start - task.stop, 0)
        yield SpikeRun(run.path, run.start + before, run.stop - after, run.at + before)


def _gather_spikes(task: ShardTask, inputs: _Inputs, out: np.ndarray) -> None:
    for run in _clipped(task):
        at = run.at - task.start
        inputs.spikes(run.path, run.start, run.stop).packed(
            run.start, run.stop, out=out[at : at + run.stop - run.start]
        )


def _count_windows(task: ShardTask, inputs: _Inputs, out: np.ndarray) -> None:
    for window, counts in zip(task.windows, out, strict=True):
        file = inputs.spikes(window.spikes, window.start, window.stop)
        file.counts(task.record.bins, window.start, window.stop, out=counts)


def _read_frames(sources: list[str | None], inputs: _Inputs, out: np.ndarray) -> None:
    for source, frame in zip(sources, out, strict=True):
        assert source is not None, "the planner checks that all windows have one"
        frame[...] = inputs.image(source)


def _write_npy(task: ShardTask, inputs: _Inputs, crc32: dict[str, str]) -> dict[str, int]:
    """Write the files; returns sizes, and notes checksums."""
    record = task.record
    folder = Path(task.store, record.seq)
    height, width = task.geometry.shape
    # Columns that hold no pixels are left out of the cut, so its geometry is the visible one.
    cut = SpikeGeometry(
        height=height,
        width=width,
        flip_rows=task.geometry.flip_rows,
        pad_frames=task.geometry.pad_frames,
    )
    written: list[str] = []
    for window, stem in zip(task.windows, task.stems, strict=True):
        spikes = inputs.spikes(window.spikes, window.start, window.stop)
        counts = spikes.counts(record.bins, window.start, window.stop)
        name = f"spike_vox/{stem}.npy"
        with atomic_write(folder / name) as file:
            np.save(file, counts.astype(record.voxel_dtype, copy=False))
        written.append(name)
        if task.only_voxels:
            continue
        name = f"spike/{stem}.dat"
        write_spikes(folder / name, spikes.read(window.start, window.stop), cut)
        written.append(name)
        for kind, source in (("blur", window.blur), ("sharp", window.sharp)):
            if source is None:
                continue
            inputs.image(source)
            name = f"{kind}/{stem}{Path(source).suffix}"
            with atomic_write(folder / name) as file, inputs.path(source).open("rb") as image:
                shutil.copyfileobj(image, file)
            written.append(name)
    storage = open_storage(folder)
    crc32.update((name, checksum(storage.stream(name))) for name in written)
    return {name: (folder / name).stat().st_size for name in written}
