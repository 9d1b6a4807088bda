"""Reading the unified layout directly: voxels from `.npy`, or counted from `.dat` on the fly.

    <root>/<split>/<sequence...>/{blur,sharp,spike,spike_vox}/<frame>.{png,dat,npy}

`.npy` of any integer type are raw counts, as `voxelize --format npy` writes them. Floating ones
are as the field's own scripts write them: log1p is done, so they can't be normalised again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..align.layouts.contract import index_frames
from ..align.log import AlignmentRow, read_alignment_log
from ..align.manifest import manifest_beside, was_corrected
from ..frames.images import image_shape, read_rgb
from ..frames.listing import IMAGE_SUFFIXES, shorten, walk_folders
from ..spikes import SideFile, SpikeClock, SpikeFile, read_side_file
from ..spikes.geometry import SpikeGeometry
from ..storage.base import StoreError
from ..storage.locate import open_storage
from ..store.records import NPY_MARK, read_record, root_kind
from .contract import Span, WindowSequence
from .stored import checked_crop, open_store, require_sharp

STREAM = "spike.dat"
"""Name of one recording for a whole sequence, in place of one `.dat` a frame."""

_Log = dict[tuple[str, int], AlignmentRow]


def open_windows(
    root: str | os.PathLike[str],
    split: str,
    *,
    bins: int,
    log_paths: Sequence[str | os.PathLike[str]] = (),
    precomputed: bool = True,
    spike_dir: str = "spike",
    voxel_dir: str = "spike_vox",
    image_exts: Sequence[str] = IMAGE_SUFFIXES,
) -> list[WindowSequence]:
    """Open a split of a Zarr store or of a unified folder, whichever `root` is.

    Raises:
        StoreError: neither is there, or it has another number of bins.
    """
    if root_kind(open_storage(root)) not in ("packed", "counts"):
        return open_unified(
            root,
            split,
            bins=bins,
            log_paths=log_paths,
            precomputed=precomputed,
            spike_dir=spike_dir,
            voxel_dir=voxel_dir,
            image_exts=image_exts,
        )
    return open_store(root, split, bins)


def open_unified(
    root: str | os.PathLike[str],
    split: str,
    *,
    bins: int,
    log_paths: Sequence[str | os.PathLike[str]],
    precomputed: bool,
    spike_dir: str = "spike",
    voxel_dir: str = "spike_vox",
    image_exts: Sequence[str] = IMAGE_SUFFIXES,
) -> list[WindowSequence]:
    """Open all sequences of one split of a unified folder, sorted by name.

    Args:
        root: the folder that holds the splits.
        split: train, val or test.
        bins: K; `.npy` files must have it.
        log_paths: alignment logs, which have the windows' times.
        precomputed: True: voxels from `.npy`; False: counted from `.dat` when read.
        spike_dir: a sequence's folder of `.dat` files.
        voxel_dir: its folder of `.npy` files.
        image_exts: endings of image files, such as .png.

    Raises:
        StoreError: nothing there, a frame without partner or row in the logs, a `.npy` of
            another shape, or spikes without geometry or rate; names it.
    """
    top = Path(root, split)
    if not top.is_dir():
        raise StoreError(
            f"{top}: expected a store, or a folder <root>/<split>/<sequence>/blur, found none; "
            "check DATA.ROOT and the split"
        )
    log = _read_logs(log_paths)
    if not precomputed:
        _require_uncorrected(log_paths, split)
    layout = _Layout(bins, precomputed, spike_dir, voxel_dir, tuple(e.lower() for e in image_exts))
    folders = sorted(folder for folder, inner, _ in walk_folders(top) if "blur" in inner)
    if not folders:
        raise StoreError(f"{top}: expected <sequence>/blur in it, found none; check DATA.ROOT")
    return [
        _open_sequence(folder, folder.relative_to(root).as_posix(), log, layout)
        for folder in folders
    ]


@dataclass(frozen=True, slots=True)
class _Layout:
    bins: int
    precomputed: bool
    spike_dir: str
    voxel_dir: str
    image_exts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UnifiedSequence:
    """One sequence of a unified folder; see `WindowSequence`."""

    seq: str
    bins: int
    gain: float | None
    frame_index: np.ndarray
    t0: np.ndarray
    t1: np.ndarray
    samples: np.ndarray
    """(N,) int64; 0 where it isn't known, which only floating voxels (not raw) may have."""
    frame_shape: tuple[int, int]
    voxel_shape: tuple[int, int]
    windows_are_raw: bool
    blur_paths: tuple[Path, ...] = field(repr=False)
    sharp_paths: tuple[Path, ...] = field(repr=False)
    """Empty where there are none."""
    voxel_paths: tuple[Path, ...] = field(repr=False)
    """`.npy` files, or `.dat` files where `geometry` is given."""
    voxel_dtype: str
    geometry: SpikeGeometry | None
    first_samples: tuple[int, ...] = field(repr=False)
    """Each window's first sample in its `.dat`."""

    is_remote: ClassVar = False

    @property
    def length(self) -> int:
        """N."""
        return len(self.blur_paths)

    @property
    def has_sharp(self) -> bool:
        """Whether there are sharp frames."""
        return bool(self.sharp_paths)

    @property
    def has_spikes(self) -> bool:
        """Whether voxels are counted from `.dat`."""
        return self.geometry is not None

    def spikes(self, window: int, rows: Span | None = None) -> np.ndarray:
        """Return one exposure's spikes (samples, h, w) uint8 of 0/1, upright."""
        return self.spikes_beside(window, 0, rows)[0]

    def spikes_beside(
        self, window: int, beside: int, rows: Span | None = None, columns: Span | None = None
    ) -> tuple[np.ndarray, int]:
        """Return one exposure's spikes, with some before and after it; see `SpikeWindows`."""
        if self.geometry is None:
            raise StoreError(f"{self.seq}: expected `.dat` spikes, found `.npy` counts in bins")
        file = _open_spikes(self.voxel_paths[window], self.geometry)
        start = self.first_samples[window]
        stop = start + int(self.samples[window])
        first, last = max(0, start - beside), min(stop + beside, file.n_frames)
        return file.read(first, last, rows, columns), start - first

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return (T, K, h, w): raw uint8 or uint16 counts, or float32 where not raw."""
        y, x = checked_crop(self, start, stop, rows, columns, self.voxel_shape)
        shape = (stop - start, self.bins, y[1] - y[0], x[1] - x[0])
        out = np.empty(shape, self.voxel_dtype)
        for i in range(start, stop):
            path = self.voxel_paths[i]
            if self.geometry is None:
                voxels = _map_voxels(path, self.bins, self.voxel_shape, self.windows_are_raw)
                out[i - start] = _fitting(voxels[:, slice(*y), slice(*x)], self.voxel_dtype, path)
                continue
            first = self.first_samples[i]
            out[i - start] = _open_spikes(path, self.geometry).counts(
                self.bins,
                first,
                first + int(self.samples[i]),
                y,
                x,
            )
        return out

    def blur(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return blurred frames (T, H, W, 3) uint8."""
        return self._images(self.blur_paths, start, stop, rows, columns)

    def sharp(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return sharp frames (T, H, W, 3) uint8."""
        require_sharp(self)
        return self._images(self.sharp_paths, start, stop, rows, columns)

    def _images(
        self,
        paths: tuple[Path, ...],
        start: int,
        stop: int,
        rows: Span | None,
        columns: Span | None,
    ) -> np.ndarray:
        y, x = checked_crop(self, start, stop, rows, columns, self.frame_shape)
        box = slice(*y), slice(*x)
        return np.stack([read_rgb(path, self.frame_shape)[box] for path in paths[start:stop]])


def _open_sequence(folder: Path, seq: str, log: _Log, layout: _Layout) -> UnifiedSequence:
    blurs = _frames(folder / "blur", layout.image_exts)
    if not blurs:
        raise StoreError(f"{folder / 'blur'}: expected images named by number, found none")
    sharps = _frames(folder / "sharp", layout.image_exts)
    if sharps:
        _require_partners(blurs, sharps, folder / "sharp")
    rows = []
    for number, path in blurs.items():
        row = log.get((seq, number))
        if row is None:
            raise StoreError(
                f"{path}: no row for frame {number} of {seq!r} in the alignment logs "
                f"({len(log)} rows); run `spikedeblur align` and give its log as "
                "DATA.ALIGN_LOG_PATHS"
            )
        rows.append(row)
    frame_shape = image_shape(next(iter(blurs.values())))
    find = _find_npy if layout.precomputed else _find_dat
    voxels = find(folder, seq, list(blurs), rows, layout)
    return UnifiedSequence(
        seq=seq,
        bins=layout.bins,
        gain=voxels.gain,
        frame_index=np.array(list(blurs), np.int64),
        t0=np.array([row.t0 for row in rows], np.float64),
        t1=np.array([row.t1 for row in rows], np.float64),
        samples=np.array(voxels.samples, np.int64),
        frame_shape=frame_shape,
        voxel_shape=voxels.shape,
        windows_are_raw=voxels.dtype != "float32",
        blur_paths=tuple(blurs.values()),
        sharp_paths=tuple(sharps[number] for number in blurs) if sharps else (),
        voxel_paths=tuple(voxels.paths),
        voxel_dtype=voxels.dtype,
        geometry=voxels.geometry,
        first_samples=tuple(voxels.first_samples),
    )


@dataclass(frozen=True, slots=True)
class _Voxels:
    paths: list[Path]
    shape: tuple[int, int]
    dtype: str
    gain: float | None
    samples: list[int]
    first_samples: list[int]
    geometry: SpikeGeometry | None


def _find_npy(
    folder: Path, seq: str, numbers: list[int], rows: list[AlignmentRow], layout: _Layout
) -> _Voxels:
    where = folder / layout.voxel_dir
    record = (
        read_record(open_storage(folder), "npy")
        if layout.voxel_dir == Path(NPY_MARK).parent.name
        else None
    )
    if record is not None and record.complete is None:
        raise StoreError(
            f"{where}: not complete: a run of `voxelize` was stopped; run it again, it continues"
        )
    files = _frames(where, (".npy",))
    _require_partners(dict.fromkeys(numbers, where), files, where)
    paths = [files[number] for number in numbers]
    first = _load_npy(paths[0])
    if first.ndim != 3 or first.shape[0] != layout.bins:
        raise StoreError(
            f"{paths[0]}: expected voxels ({layout.bins}, h, w), found {first.shape}; set DATA.K "
            "to what is there, or voxelize again"
        )
    if first.dtype.kind not in "uif":
        raise StoreError(
            f"{paths[0]}: expected counts (integers) or log counts (floating), found "
            f"{first.dtype}; voxelize again with `spikedeblur voxelize --format npy`"
        )
    shape = int(first.shape[1]), int(first.shape[2])
    side = read_side_file(folder / layout.spike_dir / f"{paths[0].stem}.dat")
    raw = first.dtype.kind != "f"
    if side is None and record is not None:
        side = SideFile(geometry=record.geometry, rate=record.rate, gain=record.gain)
    if raw and (side is None or side.rate is None):
        raise StoreError(
            f"{folder / layout.spike_dir}: expected a side file spikes.json with the rate, which "
            "raw counts are normalised by, found none; write it with `spikedeblur convert`"
        )
    samples = [0] * len(rows)
    if side is not None and side.rate is not None:
        samples = [_count_samples(side.rate, row) for row in rows]
    gain = None if side is None else side.gain
    dtype = ("uint8" if first.dtype == np.uint8 else "uint16") if raw else "float32"
    return _Voxels(paths, shape, dtype, gain, samples, [0] * len(rows), None)


def _find_dat(
    folder: Path, seq: str, numbers: list[int], rows: list[AlignmentRow], layout: _Layout
) -> _Voxels:
    where = folder / layout.spike_dir
    streams = [path for path in (folder / STREAM, where / STREAM) if path.is_file()]
    if streams:
        paths = [streams[0]] * len(numbers)
    else:
        files = _frames(where, (".dat",))
        _require_partners(dict.fromkeys(numbers, where), files, where)
        paths = [files[number] for number in numbers]
    geometry: SpikeGeometry | None = None
    gain: float | None = None
    samples, firsts = [], []
    sides = {path: _require_side(path) for path in dict.fromkeys(paths)}
    for path, row in zip(paths, rows, strict=True):
        side = sides[path]
        assert side.rate is not None
        here = side.spike_geometry()
        if geometry is not None and (here, side.gain) != (geometry, gain):
            raise StoreError(f"{path}: another geometry or gain than the other frames' of {seq}")
        geometry, gain = here, side.gain
        n_frames = _open_spikes(path, here).n_frames
        if streams:
            clock = SpikeClock(rate=side.rate, first=side.first)
            start, stop = clock.require_inside(row.t0, row.t1, n_frames, str(path))
        else:
            # A frame's own file begins with its exposure.
            start, stop = 0, _count_samples(side.rate, row)
            if n_frames != stop:
                raise StoreError(
                    f"{path}: expected the {stop} samples of the exposure [{row.t0:.6f}, "
                    f"{row.t1:.6f}] s at {side.rate:g} Hz, found {n_frames}; check the rate, or "
                    "run `align` and `voxelize` on this data set, which know its timing"
                )
        samples.append(stop - start)
        firsts.append(start)
    assert geometry is not None, "a sequence has at least one frame"
    if min(samples) < layout.bins:
        raise StoreError(
            f"{seq}: a window has {min(samples)} spike samples for {layout.bins} bins; set DATA.K "
            f"to {min(samples)} or fewer"
        )
    deep = -(-max(samples) // layout.bins) > 255
    dtype = "uint16" if deep else "uint8"
    return _Voxels(paths, geometry.shape, dtype, gain, samples, firsts, geometry)


def _require_side(dat: Path) -> SideFile:
    side = read_side_file(dat)
    if side is None or side.rate is None:
        raise StoreError(
            f"{dat}: expected a side file (spikes.json in its folder, or {dat.name}.json) with "
            "geometry and rate, found none; write it with `spikedeblur convert`"
        )
    return side


def _count_samples(rate: float, row: AlignmentRow) -> int:
    start, stop = SpikeClock(rate=rate, first=row.t0).samples(row.t0, row.t1)
    return stop - start


def _frames(folder: Path, suffixes: tuple[str, ...]) -> dict[int, Path]:
    return dict(sorted(index_frames(folder, [], suffixes=suffixes).items()))


def _require_partners(of: dict[int, Path], there: dict[int, Path], where: Path) -> None:
    missing = [str(number) for number in of if number not in there]
    if missing:
        raise StoreError(
            f"{where}: no file for frame {shorten(missing)}, which blur/ has; add it, or run "
            "`spikedeblur voxelize --format npy` if these are voxels"
        )


def _require_uncorrected(paths: Iterable[str | os.PathLike[str]], split: str) -> None:
    """Refuse spikes whose clock or place `align` corrected: side files don't know of that."""
    for path in paths:
        manifest = manifest_beside(path)
        corrected = [
            sequence.seq
            for sequence in (manifest.sequences if manifest else ())
            if sequence.split == split and was_corrected(sequence)
        ]
        if corrected:
            raise StoreError(
                f"{path}: align corrected the clock or the place of the spikes of "
                f"{shorten(corrected)}, which .dat files read directly would miss; voxelize its "
                "manifest and read that store"
            )


def _read_logs(paths: Iterable[str | os.PathLike[str]]) -> _Log:
    log: _Log = {}
    for path in paths:
        for key, row in read_alignment_log(path).items():
            if log.setdefault(key, row) != row:
                raise StoreError(
                    f"{path}: frame {row.frame_idx} of {row.seq} is in another log with other "
                    "times; give one of them"
                )
    return log


def _load_npy(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path}: can't read the voxels ({error}); voxelize again") from error
    return array


def _map_voxels(path: Path, bins: int, shape: tuple[int, int], raw: bool) -> np.ndarray:
    voxels = _load_npy(path)
    if voxels.shape != (bins, *shape) or voxels.dtype.kind not in ("ui" if raw else "f"):
        raise StoreError(
            f"{path}: expected {'counts' if raw else 'log counts'} {(bins, *shape)} as in the "
            f"sequence's first, found {voxels.dtype} {voxels.shape}; voxelize again"
        )
    return voxels


def _fitting(voxels: np.ndarray, dtype: str, path: Path) -> np.ndarray:
    """Return the voxels, refusing counts that `dtype` can't hold: NumPy would wrap them."""
    if dtype != "float32" and not np.can_cast(voxels.dtype, dtype):
        least, most = int(voxels.min()), int(voxels.max())
        if least < 0 or most > np.iinfo(dtype).max:
            raise StoreError(
                f"{path}: expected counts of 0 to {np.iinfo(dtype).max} ({dtype}, by the "
                f"sequence's first), found {least} to {most}; voxelize again"
            )
    return voxels


@lru_cache(maxsize=64)
def _open_spikes(path: Path, geometry: SpikeGeometry) -> SpikeFile:
    return SpikeFile.open(path, geometry)
