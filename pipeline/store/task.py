"""Making one shard: the function that Dask maps. It needs no Dask itself."""

from __future__ import annotations

import math
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import SpikeDeblurError
from ..files import atomic_write, inside, sha256_file
from ..images import read_rgb
from ..spikes import SpikeFile
from ..spikes.clock import SpikeWindowError
from ..spikes.dat import write_spikes
from ..spikes.geometry import SpikeGeometry
from .plan import ShardTask, SourceFile, WindowSource
from .schema import StoreError
from .shard import write_shard_file


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What the planner must know of a written shard: tiny, so that it travels cheaply."""

    seq: str
    windows: int
    files: dict[str, int]
    """Size in bytes of each file written, by path relative to the sequence's folder."""
    sha256: dict[str, str]
    """By source path, for those that this task was to hash."""
    bytes_in: int
    """Packed spike bytes of its windows."""


def write_shard(task: ShardTask) -> ShardResult:
    """Write windows [task.start, task.stop) of one sequence.

    Raises:
        StoreError: a source changed since it was aligned, can't be used, or the store can't be
            written; names the sequence.
    """
    try:
        inputs = _Inputs(task)
        files = _write_npy(task, inputs) if task.record.kind == "npy" else _write_zarr(task, inputs)
    except SpikeDeblurError as error:
        seq = task.record.seq
        raise StoreError(str(error) if seq in str(error) else f"{seq}: {error}") from error
    except OSError as error:
        raise StoreError(
            f"{task.record.seq}: can't read or write ({error}); check the disk, then run "
            "`voxelize` again: what is complete is kept"
        ) from error
    frame_bits = task.geometry.frame_bits
    return ShardResult(
        seq=task.record.seq,
        windows=task.stop - task.start,
        files=files,
        sha256={source.path: inputs.sha256[source.path] for source in inputs.to_report},
        bytes_in=sum((w.stop - w.start) * frame_bits for w in task.windows) // 8,
    )


class _Inputs:
    """The task's source files: each is checked against the plan when first read."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._expected = {source.path: source for source in task.sources}
        self._open: tuple[str, SpikeFile] | None = None
        self.sha256: dict[str, str] = {}
        self.to_report = [
            source
            for source in task.sources
            if source.hashed_here and not (task.only_voxels and not source.path.endswith(".dat"))
        ]

    def path(self, relative: str) -> Path:
        return inside(Path(self._task.root), relative, self._task.record.seq)

    def image(self, relative: str) -> np.ndarray:
        path = self.path(relative)
        self._check(relative, sha256_file(path))
        return read_rgb(path, self._task.record.frame_shape)

    def spikes(self, window: WindowSource) -> SpikeFile:
        if self._open is None or self._open[0] != window.spikes:
            path = self.path(window.spikes)
            hashed = self._expected[window.spikes].hashed_here
            self._check(window.spikes, sha256_file(path) if hashed else None)
            self._open = window.spikes, SpikeFile.open(path, self._task.geometry)
        file = self._open[1]
        if not 0 <= window.start < window.stop <= file.n_frames:
            raise SpikeWindowError(
                f"{file.path}: frame {window.frame_index} needs spike samples {window.start} to "
                f"{window.stop - 1}, but the file has 0 to {file.n_frames - 1}; run `align` again"
            )
        return file

    def _check(self, relative: str, sha256: str | None) -> None:
        expected = self._expected[relative]
        stat = self.path(relative).stat()
        require_unchanged(self._task.record.seq, expected, stat.st_size, stat.st_mtime_ns, sha256)
        if sha256 is not None:
            self.sha256[relative] = sha256


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


def _write_zarr(task: ShardTask, inputs: _Inputs) -> dict[str, int]:
    record = task.record
    folder = Path(task.store, record.seq)
    specs = record.arrays()
    sizes: dict[str, int] = {}

    def write(name: str, data: np.ndarray) -> None:
        (key,) = specs[name].shard_keys(task.start, task.stop)
        sizes[key] = write_shard_file(folder / key, data, specs[name])

    n = len(task.windows)
    voxels = _buffer("voxels", (n, *specs["voxels"].shape[1:]), specs["voxels"].dtype)
    for i, window in enumerate(task.windows):
        voxels[i] = inputs.spikes(window).counts(record.bins, window.start, window.stop)
    write("voxels", voxels)

    frames = _buffer("frames", (n, *record.frame_shape, 3), "uint8")
    for name in ("blur", "sharp") if record.has_sharp else ("blur",):
        for i, window in enumerate(task.windows):
            source = window.blur if name == "blur" else window.sharp
            assert source is not None, "the planner checks that all windows have one"
            frames[i] = inputs.image(source)
        write(name, frames)
    return sizes


def _write_npy(task: ShardTask, inputs: _Inputs) -> dict[str, int]:
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
        spikes = inputs.spikes(window)
        counts = spikes.counts(record.bins, window.start, window.stop)
        name = f"spike_vox/{stem}.npy"
        with atomic_write(folder / name) as aside, aside.open("wb") as file:
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
            with atomic_write(folder / name) as aside:
                shutil.copyfile(inputs.path(source), aside)
            written.append(name)
    return {name: (folder / name).stat().st_size for name in written}


_local = threading.local()


def _buffer(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return an array to fill, the same memory for every task of a thread.

    Fresh pages cost more than the counting: the system clears them one fault at a time.
    """
    held: np.ndarray | None = getattr(_local, name, None)
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if held is None or held.nbytes < nbytes:
        held = np.empty(nbytes, np.uint8)
        setattr(_local, name, held)
    return held[:nbytes].view(dtype).reshape(shape)
