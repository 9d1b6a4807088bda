"""Reading and writing headerless `.dat` spike files.

A file holds one bit a pixel; some tools write one byte a pixel instead, which shows in the values.
Files are memory-mapped: a crop in time and space touches its own bytes.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..host.files import atomic_write
from ..host.reading import open_file
from .between import Cut
from .counts import bin_edges, count_spikes, count_type
from .geometry import SpikeGeometry, SpikeGeometryError
from .intervals import HalfLight, Light, light_of_packed
from .mosaic import BLOCK, Shares, place_rates, shares_of, thin
from .packed import Bytes, Range, Region, pack_bits, reverse_bits
from .stream import SpikeStream

SPIKE_SUFFIXES = (".dat", ".bin")
"""Suffixes of spike files, in lower case."""

Encoding = Literal["packed", "bytes"]

MAPPED_BYTES = 1 << 28
"""Size of a file above which memory of what was read is let go."""

_FIRST_BYTES = 1 << 12  # enough to see that a file is packed
_SCAN_BYTES = 1 << 22
_MOST_SCANNED = 64  # pieces of a file that show how it is encoded
_SAMPLED_FRAMES = 64
_DECODED_BYTES = 1 << 18  # decoded at once: they stay in a core's own cache


class SpikeFileError(SpikeDeblurError):
    """A spike file is missing, empty, cut, or in another format."""


@dataclass(frozen=True, slots=True)
class SpikeFile(SpikeStream):
    """An open `.dat`; `read` and `counts` touch only the bytes they need."""

    path: Path
    geometry: SpikeGeometry
    n_frames: int
    encoding: Encoding
    data: Bytes
    """(n_bytes,) uint8, memory-mapped."""
    span: tuple[int, int] | None = None
    """Samples [start, stop) that may be read; None: all."""
    shares: Shares | None = None
    """Share of the spikes that stay under each filter of a mosaic; None: no filters."""

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], geometry: SpikeGeometry, cut: Cut | None = None
    ) -> SpikeFile:
        """Map a spike file into memory.

        A file is read as one byte a pixel if it is a whole number of frames that way and holds
        nothing but zeros and one other value, 1 or 255 or any, at least 16 times; as packed bits
        otherwise. Of a file above 256 MB, parts from its beginning to its end show which it is. Of
        a part of a recording, that part does; nothing outside is read but the file's first bytes.

        Args:
            path: the file.
            geometry: which bit is which pixel.
            cut: the part of the recording to which reading is confined; None: all of it.

        Raises:
            SpikeFileError: missing, empty, a Prophesee event file, or no whole number of frames.
            SpikeWindowError: no sample lies in the part.
        """
        path = Path(path)
        data = _map(path)
        encoding = _encoding(data, geometry, path, cut)
        _advise(data, 0, data.size, mmap.MADV_DONTNEED)
        file = cls(path, geometry, _frames_in(data.size, geometry, path, encoding), encoding, data)
        if cut is not None:
            file = replace(file, span=cut.samples(file.n_frames, path))
        return file._equalised()

    @property
    def whole(self) -> tuple[int, int]:
        """Samples [start, stop) that may be read."""
        return self.span or (0, self.n_frames)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[SpikeFile, tuple[int, int]]]:
        """Yield this file with the samples, as a stream in parts yields each of its files."""
        yield self, (start, stop)

    def place(self, start: int, stop: int) -> tuple[int, int]:
        """Return the bytes [start, stop) of the file that hold samples [start, stop)."""
        bits = self.geometry.frame_bits if self.encoding == "packed" else 8 * self.geometry.pixels
        return start * bits // 8, min(-(-stop * bits // 8), self.data.size)

    @property
    def is_plain(self) -> bool:
        """Whether the file's bits are the spikes as they are read: packed, without a mosaic."""
        return self.encoding == "packed" and self.shares is None

    def read(
        self,
        start: int = 0,
        stop: int | None = None,
        rows: Range = None,
        columns: Range = None,
    ) -> npt.NDArray[np.uint8]:
        """Decode samples [start, stop) of a crop, as `SpikeStream.read` says."""
        start, stop = self._checked_window(start, stop)
        region = Region.of(self.geometry, rows, columns)
        if self.shares is None:
            return self._decoded(start, stop, region)
        first, last = start // BLOCK * BLOCK, min(-(-stop // BLOCK) * BLOCK, self.whole[1])
        known = max(first, self.whole[0])  # a block that begins before the part has no spikes there
        spikes = np.pad(self._decoded(known, last, region), ((known - first, 0), (0, 0), (0, 0)))
        corner = (region.rows[0], region.columns[0])
        return thin(spikes, self.shares, first, corner)[start - first : stop - first]

    def _equalised(self) -> SpikeFile:
        """Return the file with the shares of a mosaic's colours, measured over all of it."""
        bayer = self.geometry.bayer
        if bayer is None:
            return self
        region = Region.of(self.geometry)
        start, stop = self.whole
        frames = np.unique(np.linspace(start, stop - 1, _SAMPLED_FRAMES).astype(int)).tolist()
        rates = np.mean([place_rates(self._decoded(i, i + 1, region)) for i in frames], axis=0)
        return replace(self, shares=shares_of(rates, bayer))

    def _decoded(self, start: int, stop: int, region: Region) -> npt.NDArray[np.uint8]:
        out = np.empty((stop - start, *region.shape), np.uint8)
        with self.held(start, stop):
            self._decode(start, stop, region, out)
        return out

    def _decode(self, start: int, stop: int, region: Region, out: Bytes) -> None:
        if self.encoding == "bytes":
            height, width = self.geometry.height, self.geometry.width
            stored = self.data.reshape(-1, height, width)[start:stop]
            upright = stored[:, ::-1] if self.geometry.flip_rows else stored
            parts = [upright[:, slice(*region.rows), slice(*span)] for span in region.segments]
            np.concatenate(parts, axis=-1, out=out)
            np.minimum(out, 1, out=out)
            return
        unpack = region.unpacker(self.data)
        at_once = max(1, _DECODED_BYTES // (region.shape[0] * region.packed_width))
        for first in range(start, stop, at_once):
            last = min(first + at_once, stop)
            pixels = region.upright(unpack(first, last))
            for to, of in region.column_pairs:
                out[first - start : last - start, :, to] = pixels[..., of]

    @contextmanager
    def held(self, start: int, stop: int) -> Iterator[None]:
        """Fetch samples of a large file, and no others; let go of their memory once they are read.

        The system keeps what it read while there is room, but counts it as this process's.
        """
        _advise(self.data, *self.place(start, stop), mmap.MADV_WILLNEED)
        yield
        _advise(self.data, *self.place(start, stop), mmap.MADV_DONTNEED)

    def counts(
        self,
        bins: int,
        start: int = 0,
        stop: int | None = None,
        rows: Range = None,
        columns: Range = None,
        *,
        out: npt.NDArray[np.generic] | None = None,
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Count spikes in temporal bins, as `SpikeStream.counts` says."""
        start, stop = self._checked_window(start, stop)
        if self.is_plain:
            with self.held(start, stop):
                return count_spikes(
                    self.data, self.geometry, bins, start, stop, rows, columns, out=out
                )
        edges = start + bin_edges(stop - start, bins)
        dtype = count_type(stop - start, bins)
        shape = Region.of(self.geometry, rows, columns).shape
        counts = np.zeros((bins, *shape), dtype)
        for b, (first, last) in enumerate(itertools.pairwise(edges.tolist())):
            for frame in range(first, last, BLOCK):
                part = self.read(frame, min(frame + BLOCK, last), rows, columns)
                counts[b] += part.sum(axis=0, dtype=dtype)
        if out is not None:
            out[...] = counts
        return counts

    def light(
        self,
        bins: int,
        exposure: tuple[int, int],
        known: tuple[int, int],
        rows: Range = None,
        columns: Range = None,
        *,
        out: Light | HalfLight,
    ) -> None:
        """Write an exposure's light to `out`, as `SpikeStream.light` says."""
        if not self.is_plain:
            SpikeStream.light(self, bins, exposure, known, rows, columns, out=out)
            return
        self._checked_window(*known)
        with self.held(*known):
            light_of_packed(self.data, self.geometry, bins, exposure, known, rows, columns, out=out)

    def count_spikes(self, start: int = 0, stop: int | None = None) -> int:
        """Return how many spikes the samples [start, stop) hold, over all pixels."""
        start, stop = self._checked_window(start, stop)
        geometry = self.geometry
        whole = geometry.pixels % 8 == 0 and not geometry.drop_columns
        if not (whole and self.is_plain):
            return SpikeStream.count_spikes(self, start, stop)
        frame_bytes = geometry.pixels // 8
        packed = self.data[start * frame_bytes : stop * frame_bytes]
        pieces = range(0, packed.size, _SCAN_BYTES)
        with self.held(start, stop):
            return sum(int(np.bitwise_count(packed[i : i + _SCAN_BYTES]).sum()) for i in pieces)

    def packed(self, start: int, stop: int, out: Bytes) -> None:
        """Write samples [start, stop) packed row by row, as `SpikeStream.packed` says."""
        self._checked_window(start, stop)
        geometry = self.geometry
        if self.is_plain and geometry.rows_are_bytes and not geometry.drop_columns:
            frame_bytes = geometry.frame_bits // 8
            frames = self.data[start * frame_bytes : stop * frame_bytes]
            rows = frames.reshape(stop - start, geometry.height, -1)  # (T, H, W / 8)
            rows = rows[:, ::-1] if geometry.flip_rows else rows
            with self.held(start, stop):
                out[...] = reverse_bits(rows) if geometry.msb_first else rows
            return
        SpikeStream.packed(self, start, stop, out)


def read_spikes(
    path: str | os.PathLike[str],
    geometry: SpikeGeometry,
    start: int = 0,
    stop: int | None = None,
    rows: Range = None,
    columns: Range = None,
) -> npt.NDArray[np.uint8]:
    """Read samples [start, stop) of a spike file.

    Args:
        path: a `.dat` file.
        geometry: which bit is which pixel.
        start: first sample.
        stop: one past the last; None means the end.
        rows: (start, stop) of upright rows; None means all.
        columns: (start, stop) of columns; None means all.

    Returns:
        (T, h, w) uint8 of 0/1; row 0 is the scene's top.

    Raises:
        SpikeFileError, SpikeGeometryError, SpikeWindowError: see `SpikeFile`.
    """
    return SpikeFile.open(path, geometry).read(start, stop, rows, columns)


def write_spikes(
    path: str | os.PathLike[str], spikes: npt.NDArray[np.generic], geometry: SpikeGeometry
) -> None:
    """Write upright spikes (T, H, W) of 0/1 (or bool) packed, atomically.

    Dropped columns of the geometry are written as zeros.

    Raises:
        SpikeGeometryError: the shape is not the geometry's, or a value is not 0 or 1.
    """
    packed = pack_spikes(spikes, geometry)
    with atomic_write(path) as file:
        file.write(packed)


def pack_spikes(spikes: npt.NDArray[np.generic], geometry: SpikeGeometry) -> Bytes:
    """Return upright spikes (T, H, W) of 0/1 (or bool) as the (n_bytes,) uint8 of a `.dat`.

    Raises:
        SpikeGeometryError: the shape is not the geometry's, or a value is not 0 or 1.
    """
    if spikes.ndim != 3 or spikes.shape[1:] != geometry.shape or not len(spikes):
        raise SpikeGeometryError(
            f"expected spikes (T, {geometry.shape[0]}, {geometry.shape[1]}), got {spikes.shape}; "
            "check the geometry"
        )
    bits = spikes.astype(np.bool_)
    if not np.array_equal(bits, spikes):
        raise SpikeGeometryError("expected spikes of 0 and 1 only; threshold the values first")
    stored = bits[:, ::-1] if geometry.flip_rows else bits
    if geometry.drop_columns:
        full = np.zeros((len(spikes), geometry.height, geometry.width), np.bool_)
        kept = np.ones(geometry.width, np.bool_)
        for first, last in geometry.drop_columns:
            kept[first:last] = False
        full[:, :, kept] = stored
        stored = full
    frames = stored.reshape(len(spikes), -1)  # (T, H * W)
    bits = frames if geometry.pad_frames else frames.reshape(-1)
    return pack_bits(bits, msb_first=geometry.msb_first).reshape(-1)


def _map(path: Path) -> Bytes:
    if not path.is_file():
        raise SpikeFileError(f"{path}: expected a spike file, found none; check the path")
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SpikeFileError(f"{path}: the file is empty; copy or record it again")
        data = np.memmap(file, dtype=np.uint8, mode="r")
        file.seek(0)
        head = file.read(256)
    first_line = head.split(b"\n", 1)[0]
    if head.startswith(b"% ") and b"\n" in head and first_line.strip().isascii():
        raise SpikeFileError(
            f"{path}: this is a Prophesee event file (its header begins with "
            f"{first_line[:40].decode('ascii', 'replace')!r}), not a spike stream; events can't "
            "be read as spikes"
        )
    # The system would read megabytes around what is asked for.
    _advise(np.asarray(data), 0, data.size, mmap.MADV_RANDOM)
    # A plain array on the same mapping: slicing a memmap costs ten times as much.
    return np.asarray(data)


def _advise(data: Bytes, first: int, end: int, advice: int) -> None:
    """Tell the system what will be done with bytes [first, end), if the file is large."""
    mapped = getattr(data.base, "_mmap", None)
    if data.size > MAPPED_BYTES and isinstance(mapped, mmap.mmap):
        first -= first % mmap.PAGESIZE
        mapped.madvise(advice, first, end - first)


def _encoding(data: Bytes, geometry: SpikeGeometry, path: Path, cut: Cut | None) -> Encoding:
    """Return how a file's pixels are stored, by the values in it or in a part of it."""
    seen = data
    if cut is not None:  # where a packed file has the part; others show their values there, too
        bits = geometry.frame_bits
        start, stop = cut.samples(8 * data.size // bits, path)
        seen = data[start * bits // 8 : -(-stop * bits // 8)]
    return "bytes" if data.size % geometry.pixels == 0 and _is_bytes(seen, geometry) else "packed"


def _frames_in(size: int, geometry: SpikeGeometry, path: Path, encoding: Encoding) -> int:
    if encoding == "bytes":
        return size // geometry.pixels
    try:
        return geometry.count_frames(size)
    except SpikeGeometryError as error:
        raise SpikeFileError(f"{path}: {error}") from error


def _is_bytes(data: Bytes, geometry: SpikeGeometry) -> bool:
    ones = high = seen = 0
    for block in (data[:_FIRST_BYTES], *_pieces(data[_FIRST_BYTES:])):
        seen += block.size
        peak = int(block.max())
        if peak == 0:
            continue
        found = int(np.count_nonzero(block))
        if high not in (0, peak) or found != np.count_nonzero(block == peak):
            return False
        high = peak
        ones += found
    # Packed bits with values 0 and 1 only: spikes in every eighth column alone, 1 in 8 a spike.
    if ones < 16 or high == 1:
        return ones >= 16
    if high.bit_count() == 1 and 64 * ones < seen:
        return False  # a hot pixel in the dark
    return not (ones == seen or _is_packed_flat(data, geometry))


def _pieces(data: Bytes, unit: int = 1) -> Iterator[Bytes]:
    """Yield consecutive parts of whole units; of a large file some, from its beginning to its end.

    A file of zeros takes no disk, whatever its size.
    """
    piece = max(1, _SCAN_BYTES // unit) * unit
    count = -(-data.size // piece)
    for i in np.unique(np.linspace(0, count - 1, min(count, _MOST_SCANNED)).astype(int)).tolist():
        yield data[i * piece : (i + 1) * piece]


def _is_packed_flat(data: Bytes, geometry: SpikeGeometry) -> bool:
    """Whether packed frames of zeros and one value are all the same, or each of one value.

    Those of an even scene are; eighths of frames of a byte a pixel are not.
    """
    frame_bytes, spare = divmod(geometry.frame_bits, 8)
    if spare or data.size % frame_bytes:
        return False

    def frames(size: int) -> Iterator[Bytes]:
        return (piece.reshape(-1, size) for piece in _pieces(data, size))

    if all((part == data[:frame_bytes]).all() for part in frames(frame_bytes)):
        return True
    if any((part != part[:, :1]).any() for part in frames(frame_bytes)):
        return False
    return any(bool((part != part[:, :1]).any()) for part in frames(geometry.pixels))
