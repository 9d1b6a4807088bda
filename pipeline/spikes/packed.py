"""Packed spikes: their bit order, and the bits of one region of every frame.

Pixel i of a bit string is bit i % 8 of byte i // 8, the least significant bit first unless the
geometry says otherwise. A frame's rows lie one after another. Decoding and counting read them
through `Region`, which takes whole rows where the wanted columns don't start and end on bytes of
their own:

    file row   |........|........|........|........|     W bits, bottom row first if flipped
    whole      |<------------- W bits ----------->|      any W, any frame start
    columns             |<---- bytes ---->|              W and frame start are whole bytes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from .geometry import SpikeGeometry, SpikeGeometryError

Bytes = npt.NDArray[np.uint8]
Range = tuple[int, int] | None
"""(start, stop) of rows or columns; None: all."""


_LSB_FIRST: Final = "little"
_MSB_FIRST: Final = "big"


def pack_bits(pixels: npt.NDArray[np.bool_ | np.uint8], *, msb_first: bool = False) -> Bytes:
    """Return pixels of 0/1 as bits, eight a byte along the last axis; its end is padded with 0."""
    return np.packbits(pixels, axis=-1, bitorder=_MSB_FIRST if msb_first else _LSB_FIRST)


def unpack_bits(packed: Bytes, count: int | None = None, *, msb_first: bool = False) -> Bytes:
    """Return the bits along the last axis as uint8 of 0/1, the first `count` or all of them."""
    return np.unpackbits(
        packed, axis=-1, count=count, bitorder=_MSB_FIRST if msb_first else _LSB_FIRST
    )


def reverse_bits(packed: Bytes) -> Bytes:
    """Return bytes with their bits in the other order."""
    return _REVERSED[packed]


_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)), bitorder=_LSB_FIRST)
"""Each byte with its bits in the other order, by byte."""


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
        """Columns of an unpacked row."""
        if self.byte_columns is None:
            return self.geometry.width
        return 8 * (self.byte_columns[1] - self.byte_columns[0])

    @property
    def is_stored_so(self) -> bool:
        """Whether an unpacked frame is the decoded region, with nothing to turn or leave out."""
        return self.packed_width == self.shape[1] and not self.geometry.flip_rows

    def band(self, top: int, bottom: int) -> Region:
        """Return the part of the region in its rows [top, bottom)."""
        first = self.rows[0]
        return replace(self, rows=(first + top, first + bottom))

    def unpacker(self, packed: Bytes) -> Callable[[int, int], Bytes]:
        """Return a function that unpacks the region's bits of frames [start, stop).

        It returns them as uint8 of 0/1, (n, h, packed_width), rows as stored: `upright` turns them,
        and `column_pairs` says which of the columns are the region's.
        """
        geometry, (height, width) = self.geometry, (self.shape[0], self.packed_width)
        row = geometry.height - self.rows[1] if geometry.flip_rows else self.rows[0]

        def unpack_bytes(start: int, stop: int) -> Bytes:
            # Flat, because each run of bits costs a call.
            flat = stored[start:stop].reshape(stop - start, -1)
            pixels = unpack_bits(flat, msb_first=geometry.msb_first)
            return pixels.reshape(stop - start, height, width)

        def unpack_shifted(start: int, stop: int) -> Bytes:
            out = np.empty((stop - start, height * width), np.uint8)
            for pixels, frame in zip(out, range(start, stop), strict=True):
                first, shift = divmod(frame * geometry.frame_bits + row * geometry.width, 8)
                end = shift + height * width
                bits = packed[first : first + (end + 7) // 8]
                pixels[...] = unpack_bits(bits, end, msb_first=geometry.msb_first)[shift:]
            return out.reshape(-1, height, width)

        if self.byte_columns is None:
            return unpack_shifted
        stored = packed.reshape(-1, geometry.height, geometry.width // 8)
        stored = stored[:, row : row + height, slice(*self.byte_columns)]
        return unpack_bytes

    def upright(self, pixels: Bytes) -> Bytes:
        """Return unpacked rows (..., h, packed_width) in the scene's order, as a view."""
        return pixels[..., ::-1, :] if self.geometry.flip_rows else pixels

    @property
    def column_pairs(self) -> tuple[tuple[slice, slice], ...]:
        """Pairs of (columns of the decoded region, the same columns of an unpacked row)."""
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
