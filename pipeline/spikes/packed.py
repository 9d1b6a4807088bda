"""Packed spikes: their bit order, and the bits of one region of every frame.

Pixel i of a bit string is bit i % 8 of byte i // 8, the least significant bit first. A frame's rows
lie one after another. Decoding and counting read them through `Region`, which takes whole rows
where the wanted columns don't start and end on bytes of their own:

    file row   |........|........|........|........|     W bits, bottom row first if flipped
    whole      |<------------- W bits ----------->|      any W, any frame start, shifted to bit 0
    columns             |<---- bytes ---->|              W and frame start are whole bytes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .geometry import SpikeGeometry, SpikeGeometryError

Bytes = npt.NDArray[np.uint8]
Range = tuple[int, int] | None
"""(start, stop) of rows or columns; None: all."""


_BIT_ORDER: Final = "little"


def pack_bits(pixels: npt.NDArray[np.bool_ | np.uint8]) -> Bytes:
    """Return pixels of 0/1 as bits, eight a byte along the last axis; its end is padded with 0."""
    return np.packbits(pixels, axis=-1, bitorder=_BIT_ORDER)


def unpack_bits(packed: Bytes, count: int | None = None) -> Bytes:
    """Return the bits along the last axis as uint8 of 0/1, the first `count` or all of them."""
    return np.unpackbits(packed, axis=-1, count=count, bitorder=_BIT_ORDER)


@dataclass(frozen=True, slots=True)
class Region:
    """Rows and columns of upright pixels, and the packed bits of a frame that hold them."""

    geometry: SpikeGeometry
    rows: tuple[int, int]
    """Rows [start, stop) of the upright image."""
    columns: tuple[int, int]
    """Columns [start, stop) of the image without the dropped ones."""
    segments: tuple[tuple[int, int], ...]
    """Stored columns [start, stop) that hold `columns`, in order."""
    byte_columns: tuple[int, int] | None
    """Bytes [start, stop) of a stored row to read; None: whole rows are read as one bit string."""

    @classmethod
    def of(cls, geometry: SpikeGeometry, rows: Range = None, columns: Range = None) -> Region:
        """Return the region of `rows` and `columns` (start, stop); None means all of them."""
        height, width = geometry.shape
        row_range = _checked(rows, height, "rows")
        column_range = _checked(columns, width, "columns")
        segments = _stored_segments(geometry, *column_range)
        byte_columns = None
        if geometry.rows_are_bytes:
            byte_columns = (segments[0][0] // 8, (segments[-1][1] + 7) // 8)
        return cls(geometry, row_range, column_range, segments, byte_columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the decoded region."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def packed_width(self) -> int:
        """Bits between one row and the next in a loaded frame."""
        if self.byte_columns is None:
            return self.geometry.width
        return 8 * (self.byte_columns[1] - self.byte_columns[0])

    @property
    def n_bytes(self) -> int:
        """Bytes of a loaded frame."""
        return (self.shape[0] * self.packed_width + 7) // 8

    @property
    def _stored_row(self) -> int:
        """First stored row of the region."""
        return self.geometry.height - self.rows[1] if self.geometry.flip_rows else self.rows[0]

    def gather(self, packed: Bytes, frames: npt.NDArray[np.int64], out: Bytes) -> None:
        """Copy the region's bits of some frames to `out` (n, n_bytes or more), each from bit 0."""
        if self.byte_columns is None:
            for frame, target in zip(frames.tolist(), out, strict=True):
                self._load(packed, frame, target)
            return
        height, row_bytes = self.shape[0], self.geometry.width // 8
        first, last = self.byte_columns
        if (height, last - first) == (self.geometry.height, row_bytes):
            frames_of = packed.reshape(-1, self.n_bytes)
            # mode: frames are inside, and only so does take write to `out` without a copy between.
            np.take(frames_of, frames, axis=0, out=out[:, : self.n_bytes], mode="clip")
            return
        stream = packed.reshape(-1, self.geometry.height, row_bytes)
        rows = slice(self._stored_row, self._stored_row + height)
        target = out[:, : self.n_bytes].reshape(len(frames), height, last - first)
        target[...] = stream[frames, rows, first:last]

    def _load(self, packed: Bytes, frame: int, out: Bytes) -> None:
        """Copy whole rows of one frame to `out[:n_bytes]`, shifted so that they start at bit 0.

        Bits of `out` beyond the region's last pixel are undefined.
        """
        first_bit = frame * self.geometry.frame_bits + self._stored_row * self.geometry.width
        start, shift = divmod(first_bit, 8)
        target = out[: self.n_bytes]
        if shift == 0:
            target[...] = packed[start : start + self.n_bytes]
            return
        low = packed[start : start + self.n_bytes]
        np.right_shift(low, shift, out=target)
        high = packed[start + 1 : start + 1 + self.n_bytes]  # one short at the file's end
        target[: high.size] |= high << (8 - shift)

    def upright(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """View one byte a pixel (n, h * packed_width or more) as upright (n, h, packed_width).

        `column_pairs` says which of its columns are the region's.
        """
        h = self.shape[0]
        stored = pixels[:, : h * self.packed_width].reshape(-1, h, self.packed_width)
        return stored[:, ::-1] if self.geometry.flip_rows else stored

    @property
    def column_pairs(self) -> tuple[tuple[slice, slice], ...]:
        """Pairs of (columns of the decoded region, the same columns of a loaded row)."""
        origin = 0 if self.byte_columns is None else 8 * self.byte_columns[0]
        pairs = []
        at = 0
        for first, last in self.segments:
            pairs.append((slice(at, at + last - first), slice(first - origin, last - origin)))
            at += last - first
        return tuple(pairs)


def _checked(wanted: Range, size: int, name: str) -> tuple[int, int]:
    if wanted is None:
        return 0, size
    start, stop = wanted
    if not 0 <= start < stop <= size:
        raise SpikeGeometryError(
            f"expected {name} inside 0:{size}, got {start}:{stop}; check the crop"
        )
    return int(start), int(stop)


def _stored_segments(geometry: SpikeGeometry, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Return the stored column ranges of visible columns [start, stop)."""
    segments = []
    visible = stored = 0
    for drop_start, drop_stop in (*geometry.drop_columns, (geometry.width, geometry.width)):
        run = drop_start - stored
        first, last = max(start - visible, 0), min(stop - visible, run)
        if first < last:
            segments.append((stored + first, stored + last))
        visible += run
        stored = drop_stop
    return tuple(segments)
