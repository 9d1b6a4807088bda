"""Reading the unified layout directly: voxels from `.npy`, or counted from `.dat` on the fly.

    <root>/<split>/<sequence...>/{blur,sharp,spike,spike_vox}/<frame>.{png,dat,npy}

`.npy` of any integer type are raw counts, as `voxelize --format npy` writes them. Floating ones
come from the field's own scripts, which take log1p, so they can't be normalised again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..align.layouts.pairing import find_streams, index_frames
from ..align.log import AlignmentRow, read_alignment_log
from ..align.manifest import manifest_beside, was_corrected
from ..frames.images import as_type, frame_type, image_shape, read_frame
from ..frames.listing import IMAGE_SUFFIXES, shorten, walk_folders
from ..host.files import StrPath
from ..host.reporter import counted
from ..spikes import SideFile, SpikeClock, SpikeFile, read_side_file
from ..spikes.dat import SPIKE_SUFFIXES
from ..spikes.geometry import SpikeGeometry
from ..spikes.intervals import HalfLight, Light
from ..storage.base import StoreError
from ..storage.locate import open_storage
from ..store.records import NPY_VOXELS, read_record, root_kind
from ..store.schema import voxel_type
from .contract import STREAM as STREAM
from .contract import Box, FrameKind, KnownSamples, WindowSequence, sensor_of
from .corrected import sensor_beside
from .stored import open_store

_Rows = Sequence[AlignmentRow]
_Log = dict[tuple[str, int], AlignmentRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnifiedFiles:
    """Choice of the files that are read in a unified folder."""

    log_paths: Sequence[StrPath] = ()
    """Alignment logs, which have the windows' times."""
    precomputed: bool = True
    """True: voxels are read from `.npy`. False: they are counted from `.dat` when read."""
    spike_dir: str = "spike"
    """A sequence's folder of `.dat` files."""
    voxel_dir: str = NPY_VOXELS
    """A sequence's folder of `.npy` files."""
    image_exts: Sequence[str] = IMAGE_SUFFIXES
    """Endings of image files, such as .png."""


def open_windows(
    root: StrPath,
    split: str,
    *,
    bins: int,
    files: UnifiedFiles = UnifiedFiles(),
    verify: bool = False,
) -> list[WindowSequence]:
    """Open a split of a Zarr store or of a unified folder, whichever `root` is.

    Args:
        root: the store, or the folder that holds the splits.
        split: train, val or test.
        bins: K.
        files: which files of a unified folder are read.
        verify: compare a store's files with their checksums; see `open_store`.

    Raises:
        StoreError: neither is there, or it has another number of bins.
    """
    if is_store(root):
        return open_store(root, split, bins, verify=verify)
    return open_unified(root, split, bins=bins, files=files)


def is_store(root: StrPath) -> bool:
    """Whether a Zarr store that training can read is there."""
    return root_kind(open_storage(root)) in ("packed", "counts")


def require_split_folder(root: StrPath, split: str) -> Path:
    """Return the folder of a split in a unified folder.

    Raises:
        StoreError: there is none.
    """
    folder = Path(root, split)
    if not folder.is_dir():
        raise StoreError(
            f"{folder}: expected a store, or a folder <root>/<split>/<sequence>/blur, found none; "
            "check the split, and DATA.ROOT (--set DATA.ROOT=FOLDER)"
        )
    return folder


def open_unified(
    root: StrPath, split: str, *, bins: int, files: UnifiedFiles
) -> list[WindowSequence]:
    """Open all sequences of one split of a unified folder, sorted by name.

    Args:
        root: the folder that holds the splits.
        split: train, val or test.
        bins: K; `.npy` files must have it.
        files: which files are read.

    Raises:
        StoreError: nothing there, a frame without partner or row in the logs, a `.npy` of
            another shape, or spikes without geometry or rate; names it.
    """
    top = require_split_folder(root, split)
    log = _read_logs(files.log_paths)
    if not files.precomputed:
        _require_uncorrected(files.log_paths, split)
    folders = sorted(folder for folder, inner, _ in walk_folders(top) if "blur" in inner)
    if not folders:
        raise StoreError(f"{top}: expected <sequence>/blur in it, found none; check DATA.ROOT")
    sequences = [
        _open_sequence(folder, folder.relative_to(root).as_posix(), bins, log, files)
        for folder in folders
    ]
    for path in files.log_paths:
        _require_sensors(path, sequences)
    return list(sequences)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Voxels:
    """Files of a sequence's voxels, and their metadata."""

    paths: list[Path]
    """A `.npy` for each window, or a `.dat` where `geometry` is given."""
    shape: tuple[int, int]
    """(h, w), in pixels."""
    dtype: str
    gain: float | None
    samples: list[int]
    """Spike samples in each window; 0 where unknown."""
    first_samples: Sequence[int] = ()
    """Each window's first sample in its `.dat`."""
    geometry: SpikeGeometry | None = None


class UnifiedSequence(WindowSequence):
    """One sequence of a unified folder."""

    is_remote = False

    def __init__(
        self, bins: int, rows: _Rows, blur: Sequence[Path], sharp: Sequence[Path], voxels: _Voxels
    ) -> None:
        """Take files that were found to belong together.

        Args:
            bins: K.
            rows: rows of the alignment log, one for each window.
            blur: a frame for each window.
            sharp: a frame for each window; empty where there are none.
            voxels: a file for each window.
        """
        self.seq, self.length = rows[0].seq, len(rows)
        self.bins, self.gain = bins, voxels.gain
        self.frame_index = np.array([row.frame_idx for row in rows], np.int64)
        self.t0 = np.array([row.t0 for row in rows], np.float64)
        self.t1 = np.array([row.t1 for row in rows], np.float64)
        self.samples = np.array(voxels.samples, np.int64)
        self.frame_shape, self.voxel_shape = image_shape(blur[0]), voxels.shape
        self.frame_dtype = max(map(frame_type, (*blur[:1], *sharp[:1])), key=len)
        self.voxel_dtype, self.windows_are_raw = voxels.dtype, voxels.dtype != "float32"
        self.has_sharp, self.has_spikes = bool(sharp), voxels.geometry is not None
        self.paths = {"blur": blur, "sharp": sharp, "voxels": voxels.paths}
        """Files by what they hold, each in the order of the windows."""
        self._first_samples, self._geometry = voxels.first_samples, voxels.geometry
        self._recorded_dtype = voxels.dtype

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        frames = (
            as_type(read_frame(path, self.frame_shape), self.frame_dtype, Path(path))
            for path in self.paths[kind][start:stop]
        )
        return np.stack([frame[slice(*box[0]), slice(*box[1])] for frame in frames])

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        return self._of_equal_pixels(self.recorded_counts, start, stop, box)

    def recorded_counts(self, start: int, stop: int, box: Box) -> np.ndarray:
        """Return a box of voxels (T, K, h, w) as the camera's pixels made them."""
        sides = (last - first for first, last in box)
        out = np.empty((stop - start, self.bins, *sides), self._recorded_dtype)
        for i in range(start, stop):
            if self.has_spikes:
                file, first, last = self._recorded(i)
                out[i - start] = file.counts(self.bins, first, last, *box)
            else:
                out[i - start] = self._stored(self.paths["voxels"][i], box)
        return out

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        file, start, stop = self._recorded(window)
        first, last = max(0, start - beside), min(stop + beside, file.n_frames)
        return file.read(first, last, *box), start - first

    def _read_light(self, window: int, beside: int, box: Box, out: Light | HalfLight) -> None:
        file, start, stop = self._recorded(window)
        known = max(0, start - beside), min(stop + beside, file.n_frames)
        file.light(self.bins, (start, stop), known, *box, out=out)

    def known_samples(self, window: int, beside: float) -> KnownSamples:
        """Return the samples of a window and beside it; see `WindowSequence`."""
        file, start, stop = self._recorded(window)
        more = int(beside * (stop - start))
        # Where each window has a file of its own, it is numbered after those before.
        paths = self.paths["voxels"]
        earlier = 0 if paths[0] == paths[-1] else int(self.samples[:window].sum())
        first, last = max(0, start - more), min(stop + more, file.n_frames)
        return KnownSamples(*(earlier + sample for sample in (first, start, last)))

    def _recorded(self, window: int) -> tuple[SpikeFile, int, int]:
        """Return a window's recording, and the samples [start, stop) in it."""
        assert self._geometry is not None
        start = self._first_samples[window]
        file = _open_spikes(self.paths["voxels"][window], self._geometry)
        return file, start, start + int(self.samples[window])

    def _stored(self, path: Path, box: Box) -> np.ndarray:
        """Return a box of a `.npy`, refusing values that the recorded type can't hold."""
        raw, shape = self.windows_are_raw, (self.bins, *self.voxel_shape)
        voxels = _load_npy(path)
        if voxels.shape != shape or voxels.dtype.kind not in ("ui" if raw else "f"):
            raise StoreError(
                f"{path}: expected {'counts' if raw else 'log counts'} {shape} as in the "
                f"sequence's first, found {voxels.dtype} {voxels.shape}; voxelize again"
            )
        part = voxels[:, slice(*box[0]), slice(*box[1])]
        if raw and not np.can_cast(part.dtype, self._recorded_dtype):  # NumPy would wrap them
            least, most = int(part.min()), int(part.max())
            limit = np.iinfo(self._recorded_dtype).max
            if least < 0 or most > limit:
                raise StoreError(
                    f"{path}: expected counts of 0 to {limit} ({self._recorded_dtype}, by the "
                    f"sequence's first), found {least} to {most}; voxelize again"
                )
        return part


def _open_sequence(
    folder: Path, seq: str, bins: int, log: _Log, files: UnifiedFiles
) -> UnifiedSequence:
    exts = tuple(ext.lower() for ext in files.image_exts)
    blurs = _frames(folder / "blur", exts)
    if not blurs:
        raise StoreError(f"{folder / 'blur'}: expected images named by number; add them")
    sharps = _frames(folder / "sharp", exts)
    sharp_paths = _partners(blurs, sharps, folder / "sharp") if sharps else []
    rows = []
    for number, path in blurs.items():
        row = log.get((seq, number))
        if row is None:
            raise StoreError(
                f"{path}: no row for frame {number} of {seq!r} in the alignment logs "
                f"({counted(len(log), 'row')}); run `spikedeblur align` and give its log as "
                "DATA.ALIGN_LOG_PATHS"
            )
        rows.append(row)
    find = _find_npy if files.precomputed else _find_dat
    voxels = find(folder, bins, rows, files)
    sequence = UnifiedSequence(bins, rows, list(blurs.values()), sharp_paths, voxels)
    first = Path(voxels.paths[0])
    dat = first if voxels.geometry else folder / files.spike_dir / f"{first.stem}.dat"
    sensor = sensor_beside(dat, raw=sequence.windows_are_raw)
    if sensor is not None:
        sequence.sensor, sequence.voxel_dtype = sensor, "float32"
    return sequence


def _find_npy(folder: Path, bins: int, rows: _Rows, files: UnifiedFiles) -> _Voxels:
    where = folder / files.voxel_dir
    record = read_record(open_storage(folder), "npy") if files.voxel_dir == NPY_VOXELS else None
    if record is not None and record.complete is None:
        raise StoreError(
            f"{where}: not complete: a run of `voxelize` was stopped; run it again, it continues"
        )
    paths = _partners([row.frame_idx for row in rows], _frames(where, (".npy",)), where)
    first = _load_npy(paths[0])
    if first.ndim != 3 or first.shape[0] != bins:
        raise StoreError(
            f"{paths[0]}: expected voxels ({bins}, h, w), found {first.shape}; set DATA.K "
            "to what is there, or voxelize again"
        )
    if first.dtype.kind not in "uif":
        raise StoreError(
            f"{paths[0]}: expected counts (integers) or log counts (floating), found "
            f"{first.dtype}; voxelize again with `spikedeblur voxelize --format npy`"
        )
    side = read_side_file(folder / files.spike_dir / f"{paths[0].stem}.dat")
    raw = first.dtype.kind != "f"
    if side is None and record is not None:
        side = SideFile(geometry=record.geometry, rate=record.rate, gain=record.gain)
    rate = None if side is None else side.rate
    if raw and rate is None:
        raise StoreError(
            f"{folder / files.spike_dir}: expected a side file spikes.json with the rate, which "
            "raw counts are normalised by, found none; write it with `spikedeblur convert`"
        )
    return _Voxels(
        paths=paths,
        shape=(int(first.shape[1]), int(first.shape[2])),
        dtype=("uint8" if first.dtype == np.uint8 else "uint16") if raw else "float32",
        gain=None if side is None else side.gain,
        samples=[0 if rate is None else _count_samples(rate, row) for row in rows],
    )


def _find_dat(folder: Path, bins: int, rows: _Rows, files: UnifiedFiles) -> _Voxels:
    where, seq = folder / files.spike_dir, rows[0].seq
    streams = find_streams(folder, where)
    if streams:
        paths = [streams[0]] * len(rows)
    else:
        paths = _partners([row.frame_idx for row in rows], _frames(where, SPIKE_SUFFIXES), where)
    sides = {path: _require_side(path) for path in dict.fromkeys(paths)}
    first = sides[paths[0]]
    geometry, gain, sensor = first.spike_geometry(), first.gain, first.sensor
    samples, firsts = [], []
    for path, row in zip(paths, rows, strict=True):
        side = sides[path]
        assert side.rate is not None
        if (side.spike_geometry(), side.gain, side.sensor) != (geometry, gain, sensor):
            raise StoreError(
                f"{path}: another geometry, gain or sensor than the others of {seq}; correct it"
            )
        n_frames = _open_spikes(path, geometry).n_frames
        if streams:
            clock = SpikeClock(rate=side.rate, first=side.first)
            start, stop = clock.require_inside(row.t0, row.t1, n_frames, str(path))
        else:
            # A frame's own file begins with its exposure.
            start, stop = 0, _count_samples(side.rate, row)
            if n_frames != stop:
                raise StoreError(
                    f"{path}: expected the {counted(stop, 'sample')} of the exposure "
                    f"[{row.t0:.6f}, {row.t1:.6f}] s at {side.rate:g} Hz, found {n_frames}; check "
                    "the rate, or run `align` and `voxelize` on this data set: they know its timing"
                )
        samples.append(stop - start)
        firsts.append(start)
    if min(samples) < bins:
        raise StoreError(
            f"{seq}: a window has {counted(min(samples), 'spike sample')} for "
            f"{counted(bins, 'bin')}; set DATA.K "
            f"to {min(samples)} or fewer"
        )
    return _Voxels(
        paths=paths,
        shape=geometry.shape,
        dtype=voxel_type(max(samples), bins),
        gain=gain,
        samples=samples,
        first_samples=firsts,
        geometry=geometry,
    )


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


def _partners(numbers: Iterable[int], files: dict[int, Path], where: Path) -> list[Path]:
    """Return the file of each blurred frame, by its number."""
    missing = [str(number) for number in numbers if number not in files]
    if missing:
        raise StoreError(
            f"{where}: no file for frame {shorten(missing)}, which blur/ has; add it, or run "
            "`spikedeblur voxelize --format npy` if these are voxels"
        )
    return [files[number] for number in numbers]


def _require_uncorrected(paths: Iterable[StrPath], split: str) -> None:
    """Refuse spikes whose clock or registration `align` corrected, which side files don't have."""
    for path in paths:
        manifest = manifest_beside(path)
        corrected = [
            sequence.seq
            for sequence in (manifest.sequences if manifest else ())
            if sequence.split == split and was_corrected(sequence)
        ]
        if corrected:
            raise StoreError(
                f"{path}: align knows the clock, the registration or the readout of the spikes of "
                f"{shorten(corrected)}, which reading .dat files directly would miss; voxelize its "
                "manifest and read that store"
            )


def _require_sensors(log: StrPath, sequences: Iterable[WindowSequence]) -> None:
    """Refuse sequences whose sensor the manifest beside a log names, and no side file does."""
    manifest = manifest_beside(log)
    named = {s.seq for s in manifest.sequences if s.sensor is not None} if manifest else set()
    lacking = [s.seq for s in sequences if s.seq in named and sensor_of(s) is None]
    if lacking:
        found = f"align knows the sensor of {shorten(lacking)}"
        raise StoreError(f"{log}: {found}; name it in spikes.json, or voxelize to a store")


def _read_logs(paths: Iterable[StrPath]) -> _Log:
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


@lru_cache(maxsize=64)
def _open_spikes(path: Path, geometry: SpikeGeometry) -> SpikeFile:
    return SpikeFile.open(path, geometry)
