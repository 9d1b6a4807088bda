"""Spikes from other tools into the field's `.dat`: packed, bottom-up, with a side file.

A given geometry describes the input; the output is always `HxW,bottom-up`.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ...version import __version__
from ..host.extras import from_extra
from ..host.files import AsideFile, atomic_write
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..host.reading import open_file
from ..host.reporter import SILENT, Reporter, Throughput
from .between import Between, Cut
from .clock import SpikeClock
from .dat import SPIKE_SUFFIXES, pack_spikes
from .geometry import MOST_PIXELS, SpikeGeometry, SpikeGeometryError
from .parts import is_stream, open_stream, stream_files
from .presets import PRESETS, parse_geometry
from .settings import first_known, require_above_0
from .sidefile import SideFile, beside, format_side_file, read_side_file, side_file_path
from .stream import SpikeStream

_AT_ONCE = 1 << 24  # values read at once, or as many as end on a whole byte
_FRAMES_AT_ONCE = 256
_MOST_CHUNK_BYTES = 1 << 27  # of a chunk of HDF5, which is decoded whole
_MOST_TIMES = 2000  # size of an HDF5 array over what the file holds of it; deflate reaches 1030

_DAMAGED = (
    *(ValueError, EOFError, OverflowError, TypeError, RuntimeError),  # NumPy; encrypted members
    *(zipfile.BadZipFile, zlib.error),
)


class ConvertError(SpikeDeblurError):
    """The input holds no spikes that can be converted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Which spikes of the input are converted."""

    key: str | None = None
    """Array of an `.npz` or HDF5 file with several."""
    between: Between | None = None
    """Times on the input's clock; None: all."""


@dataclass(frozen=True, slots=True)
class ConvertSummary:
    """What `convert` has written."""

    out: str
    frames: int
    height: int
    width: int
    spikes: int
    bytes: int


def convert(
    source: Path,
    out: Path,
    *,
    geometry: str | None = None,
    rate: float | None = None,
    gain: float | None = None,
    taken: Taken = Taken(),  # frozen
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ConvertSummary:
    """Write the spikes of `source` to `out` as a `.dat` with a side file.

    Args:
        source: `.npy`, `.npz`, `.h5`/`.hdf5` with an array (T, H, W) of 0/1, row 0 at the top
            unless `geometry` says bottom-up; or a `.dat` in any geometry, one bit or one byte a
            pixel, or a folder or pattern of its parts, which are joined.
        out: the `.dat` to write.
        geometry: SPEC of the input; needed for a `.dat` without side file.
        rate: spike samples a second to record, in Hz; None: that of the side file or preset.
        gain: spikes a sample at unit luminance to record; None: that of the side file or preset.
        taken: which spikes of the input. The side file records the time of the first sample.
        overwrite: replace `out` and its side file.
        reporter: hears of the samples written.

    Raises:
        ConvertError: not spikes, an unclear choice, or an impossible rate or gain.
        OverwriteError: `out` or its side file exists.
    """
    require_above_0(ConvertError, rate=rate, gain=gain)
    if out.suffix != ".dat":
        raise ConvertError(f"{out}: expected a name that ends in .dat; change the output's name")
    with only_writer_of(out):
        for product in (out, side_file_path(out)):
            require_free(product, overwrite=overwrite)
        if not is_stream(source):
            raise ConvertError(f"{source}: expected a file with spikes, found none; check the path")
        files = stream_files(source)
        if out.exists() and any(out.samefile(file) for file in files):
            raise ConvertError(f"{out}: is the input itself; choose another name")

        is_dat = files[0].suffix.lower() in SPIKE_SUFFIXES
        recorded = read_side_file(source) if is_dat else None
        known = [facts for facts in (recorded, PRESETS.get(geometry or "")) if facts is not None]
        spec = geometry or (recorded.geometry if recorded else None)
        rate = first_known(rate, *(facts.rate for facts in known))
        cut = _cut(source, taken.between, rate, recorded)
        with _open(source, spec, taken.key, cut) as frames:
            height, width = frames.geometry.shape
            start, stop = frames.whole
            target = SpikeGeometry(height=height, width=width, flip_rows=True)
            side = SideFile(
                geometry=target.describe(),
                rate=rate,
                first=_time_of(start, rate, recorded),
                gain=first_known(gain, *(facts.gain for facts in known)),
                sensor=_sensor_from(out, source, recorded, frames.geometry),
                made_by={
                    "tool": "spikedeblur convert",
                    "version": __version__,
                    "source": source.name,
                    "source_geometry": spec,
                },
            )
            # Both are whole before either takes its name.
            with atomic_write(side_file_path(out)) as side_file:
                side_file.write(format_side_file(side).encode())
                side_file.finish()
                with atomic_write(out) as file:
                    spikes = _pack(source, frames, target, file, reporter)
                    file.finish()
                    # The side file of a former output would describe the new one wrongly.
                    side_file_path(out).unlink(missing_ok=True)
        return ConvertSummary(str(out), stop - start, height, width, spikes, out.stat().st_size)


def _cut(
    source: Path, between: Between | None, rate: float | None, recorded: SideFile | None
) -> Cut | None:
    """Return the part of the input that is taken; None: all of it.

    Raises:
        ConvertError: its times can't be told, because the rate is not known.
    """
    if between is None:
        return None
    if rate is None:
        raise ConvertError(
            f"{source}: expected its rate, by which {between} is found in it; give --rate in Hz"
        )
    return Cut(between, SpikeClock(rate=rate, first=recorded.first if recorded else 0.0))


def _time_of(sample: int, rate: float | None, recorded: SideFile | None) -> float:
    """Return the time of a sample, in seconds on the input's clock."""
    first = recorded.first if recorded else 0.0
    return first + sample / rate if sample and rate else first


def _sensor_from(
    out: Path, source: Path, recorded: SideFile | None, geometry: SpikeGeometry
) -> str | None:
    """Return the path of the input's sensor as the output's side file names it.

    None: it has none, or spikes that were evened out between colours, as no sensor's are.

    Raises:
        ConvertError: the spikes are read in another size than the side file gives with the sensor.
    """
    if recorded is not None and recorded.sensor is not None:
        (height, width), (h, w) = recorded.spike_geometry().shape, geometry.shape
        if (height, width) != (h, w):
            raise ConvertError(
                f"{source}: its side file names a sensor of {height}x{width} pixels, and "
                f"--geometry reads {h}x{w}; correct the side file, or remove its `sensor`"
            )
    if recorded is None or recorded.sensor is None or geometry.bayer is not None:
        return None
    return os.path.relpath(beside(source, recorded.sensor), out.parent)


def _pack(
    source: Path,
    frames: _Array | SpikeStream,
    target: SpikeGeometry,
    file: AsideFile,
    reporter: Reporter,
) -> int:
    """Write all frames packed, and return how many spikes they hold."""
    spikes = 0
    written = Throughput()
    pixels = target.height * target.width
    ends_on_byte = 8 // math.gcd(8, pixels)
    at_once = min(_FRAMES_AT_ONCE, max(1, _AT_ONCE // pixels)) // ends_on_byte * ends_on_byte
    at_once = max(ends_on_byte, at_once)
    first, end = frames.whole
    reporter.progress(0, end - first)
    for start in range(first, end, at_once):
        stop = min(start + at_once, end)
        block = frames.read(start, stop)
        try:
            packed = pack_spikes(block, target)
        except SpikeGeometryError as error:
            raise ConvertError(f"{source}: {error}") from error
        spikes += int(np.bitwise_count(packed).sum(dtype=np.int64))
        file.write(packed)
        reporter.progress(stop - first, end - first, written(packed.nbytes))
    return spikes


class _Array:
    """Frames of an array (T, H, W) that is read a slice at a time, as a `SpikeStream` is."""

    def __init__(self, source: Path, array: Any, spec: str | None, cut: Cut | None) -> None:
        shape: tuple[int, ...] = getattr(array, "shape", ())
        if len(shape) != 3 or 0 in shape:
            raise ConvertError(
                f"{source}: expected spikes (T, H, W), got shape {shape}; "
                "transpose or choose another array with --key"
            )
        height, width = int(shape[1]), int(shape[2])
        if height * width > MOST_PIXELS:
            raise ConvertError(
                f"{source}: expected samples of at most {MOST_PIXELS} pixels, got "
                f"{height}x{width}; transpose the array if its axes are others"
            )
        if array.dtype.kind not in "biuf":
            raise ConvertError(
                f"{source}: expected numbers 0 and 1, got dtype {array.dtype}; convert it"
            )
        self._source, self._array = source, array
        self.whole = (0, len(array)) if cut is None else cut.samples(len(array), source)
        self.geometry = SpikeGeometry(height=height, width=width, flip_rows=False)
        if spec is not None:
            self.geometry = parse_geometry(spec)
            if self.geometry.drop_columns or self.geometry.shape != (height, width):
                raise ConvertError(
                    f"{source}: expected samples of {spec}, got {height}x{width}; "
                    "correct --geometry or leave it out"
                )

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return frames [start, stop), upright."""
        try:
            # One at a time: values may take eight times the bytes of spikes.
            block = np.stack([self._values(i) for i in range(start, stop)])
        except OSError as error:  # HDF5 does not name the file
            raise ConvertError(f"{self._source}: can't be read ({error}); copy it again") from error
        return block[:, ::-1] if self.geometry.flip_rows else block

    def _values(self, frame: int) -> npt.NDArray[np.bool_]:
        values = np.asarray(self._array[frame])
        spikes = values.astype(np.bool_)
        if not np.array_equal(spikes, values):
            raise ConvertError(
                f"{self._source}: expected spikes of 0 and 1 only, found others in sample {frame}; "
                "threshold the values first"
            )
        return spikes


class _Zipped:
    """An array in an `.npz`, read frame after frame, so that memory stays flat."""

    def __init__(self, source: Path, member: IO[bytes]) -> None:
        self._source, self._member, self._at = source, member, 0
        headers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        version = np.lib.format.read_magic(member)
        if version not in headers:
            raise ConvertError(
                f"{source}: expected a NumPy array, found its version {version}; "
                "save it again by np.save"
            )
        self.shape, by_columns, self.dtype = headers[version](member)
        if by_columns or self.dtype.hasobject:
            raise ConvertError(
                f"{source}: expected numbers in C order, found another order or Python objects; "
                "save np.ascontiguousarray(spikes)"
            )

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, frame: int) -> npt.NDArray[Any]:
        assert frame >= self._at, "frames follow one another"
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        while self._at < frame and self._member.read(size):  # what is compressed has no places
            self._at += 1
        content = self._member.read(size)
        if len(content) != size:
            raise ConvertError(
                f"{self._source}: ends in sample {frame} of {len(self)}; copy or save it again"
            )
        self._at += 1
        return np.frombuffer(content, self.dtype).reshape(self.shape[1:])


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Turn what reading an `.npy` or `.npz` raises into a `ConvertError`."""
    try:
        yield
    except SpikeDeblurError:
        raise
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ConvertError(
            f"{source}: not a NumPy file without pickles ({error}); save the array again by np.save"
        ) from error


@contextmanager
def _open(
    source: Path, spec: str | None, key: str | None, cut: Cut | None
) -> Iterator[_Array | SpikeStream]:
    suffix = source.suffix.lower()
    if key is not None and (source.is_dir() or suffix in (*SPIKE_SUFFIXES, ".npy")):
        raise ConvertError(f"{source}: holds one array, which needs no name; leave out --key")
    if source.is_dir() or suffix in SPIKE_SUFFIXES:
        if spec is None:
            raise ConvertError(
                f"{source}: a .dat does not hold its geometry; give --geometry, for example "
                "250x400,bottom-up (`spikedeblur inspect` ranks the presets)"
            )
        yield open_stream(source, parse_geometry(spec), cut)
    elif suffix == ".npy":
        with _explained(source):
            loaded = np.load(source, mmap_mode="r")
        yield _Array(source, loaded, spec, cut)
    elif suffix == ".npz":
        with _explained(source), zipfile.ZipFile(source) as archive:
            arrays = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            with archive.open(f"{_choose(source, arrays, key)}.npy") as member:
                yield _Array(source, _Zipped(source, member), spec, cut)
    elif suffix in (".h5", ".hdf5"):
        with from_extra("hdf5", f"{source}: reading HDF5 needs h5py", ConvertError):
            import h5py
        try:
            opened = h5py.File(open_file(source), "r")  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConvertError(
                f"{source}: not a whole HDF5 file ({error}); copy it again"
            ) from error
        with opened as file:
            names: list[str] = []
            file.visititems(
                lambda name, item: names.append(name) if hasattr(item, "dtype") else None
            )
            array = file[_choose(source, names, key)]
            _require_held(source, array)
            yield _Array(source, array, spec, cut)
    else:
        raise ConvertError(
            f"{source}: expected .npy, .npz, .h5, .hdf5, .dat or .bin, got "
            f"{source.suffix or 'no suffix'}; save the spikes as one of these"
        )


def _require_held(source: Path, array: Any) -> None:
    """Refuse an HDF5 array that claims more than the file holds of it, or lies in other files."""
    if array.is_virtual or array.external:
        raise ConvertError(
            f"{source}: {array.name} names other files, which are not read; copy the spikes into "
            "one file"
        )
    held = array.id.get_storage_size()
    chunks = [
        -(-side // chunk) for side, chunk in zip(array.shape, array.chunks or (), strict=False)
    ]
    if array.size and (not held or (chunks and array.id.get_num_chunks() < math.prod(chunks))):
        raise ConvertError(f"{source}: {array.name} lacks data; record or copy it again")
    if array.size * array.dtype.itemsize > _MOST_TIMES * held:
        raise ConvertError(
            f"{source}: {array.name} claims {array.size * array.dtype.itemsize} bytes, of which "
            f"the file holds {held}; record it again"
        )
    if math.prod(array.chunks or ()) * array.dtype.itemsize > _MOST_CHUNK_BYTES:
        raise ConvertError(
            f"{source}: expected chunks of at most {_MOST_CHUNK_BYTES} bytes, found "
            f"{array.chunks}; write the array with chunks of a few samples"
        )


def _choose(source: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    raise ConvertError(
        f"{source}: expected one array, found {', '.join(names) or 'none'}; give one of them "
        "as --key"
    )
