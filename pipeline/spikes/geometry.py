"""Which bit of a packed spike file is which pixel. No I/O here.

The file has no header and its size proves nothing: 1,612,800 bytes are 56 frames of
360x640 or 224 of 180x320. The caller gives the geometry; it is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SpikeDeblurError
from ..host.reporter import counted

MAX_SIDE = 2**16
"""Largest side in pixels, far above any camera's, so that no file's claim exhausts the memory."""

MOST_PIXELS = 2**24
"""Most pixels of a frame: sixteen times those of the largest spike camera."""

BAYER_ORDERS = ("RGGB", "BGGR", "GRBG", "GBRG")
"""Colours of the first two rows' first two pixels, upright, row by row."""


class SpikeGeometryError(SpikeDeblurError):
    """The geometry is impossible, ambiguous, or does not fit the data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeGeometry:
    """How spikes lie in a `.dat` file: one bit a pixel, rows one after another."""

    height: int
    """Rows in the file, in pixels."""
    width: int
    """Columns in the file, in pixels, those to drop included."""
    flip_rows: bool
    """True if rows are stored bottom-up; without a default, because data sets differ."""
    pad_frames: bool = False
    """True if every frame starts on a byte; False if bits run on."""
    drop_columns: tuple[tuple[int, int], ...] = ()
    """Column ranges [start, stop) that hold row headers or padding, not pixels."""
    bayer: str | None = None
    """Order of colour filters over the upright image, one of `BAYER_ORDERS`; None: no filters."""
    msb_first: bool = False
    """True if a byte's first pixel is its most significant bit; in the field it is the least."""

    def __post_init__(self) -> None:
        # Under 8 pixels, padding at the file's end could pass for a frame.
        sides = (self.height, self.width)
        if min(sides) < 1 or max(sides) > MAX_SIDE or not 8 <= self.pixels <= MOST_PIXELS:
            raise SpikeGeometryError(
                f"expected sides of 1 to {MAX_SIDE} pixels and 8 to {MOST_PIXELS} pixels in all, "
                f"found {self.height}x{self.width}; check height and width"
            )
        end = 0
        for start, stop in self.drop_columns:
            if not end <= start < stop <= self.width:
                raise SpikeGeometryError(
                    f"expected ascending column ranges to drop inside 0:{self.width}, got "
                    f"{self.drop_columns}; check drop=START:STOP"
                )
            end = stop
        if self.bayer is not None and self.bayer not in BAYER_ORDERS:
            raise SpikeGeometryError(
                f"expected bayer among {', '.join(BAYER_ORDERS)}, got {self.bayer}; give the "
                "colours of the upright picture's first 2x2 pixels, row by row"
            )
        if self.shape[1] < 1:
            raise SpikeGeometryError(
                f"drop={self.drop_columns} leaves no column of {self.width}; check drop=START:STOP"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the decoded image, without the dropped columns."""
        return self.height, self.width - sum(stop - start for start, stop in self.drop_columns)

    @property
    def pixels(self) -> int:
        """Bits that a frame uses in the file."""
        return self.height * self.width

    @property
    def frame_bits(self) -> int:
        """Bits from one frame's start to the next."""
        return (self.pixels + 7) // 8 * 8 if self.pad_frames else self.pixels

    @property
    def rows_are_bytes(self) -> bool:
        """Whether every row begins on a byte."""
        return self.width % 8 == 0 and self.frame_bits % 8 == 0

    def count_frames(self, n_bytes: int) -> int:
        """Return the number of packed frames in `n_bytes`.

        Raises:
            SpikeGeometryError: not a whole number of frames, or none.
        """
        n_frames, spare_bits = divmod(8 * n_bytes, self.frame_bits)
        if n_frames == 0 or spare_bits >= 8:
            raise SpikeGeometryError(
                f"expected whole {self.height}x{self.width} samples of {self.frame_bits} bits, "
                f"got {n_bytes} bytes ({counted(n_frames, 'sample')}, "
                f"{counted(spare_bits, 'bit')} over); check for "
                "a cut file or another geometry"
            )
        return n_frames

    def describe(self) -> str:
        """Return the geometry as the SPEC that `parse_geometry` reads."""
        parts = [f"{self.height}x{self.width}", "bottom-up" if self.flip_rows else "top-down"]
        if self.pad_frames:
            parts.append("padded")
        if self.msb_first:
            parts.append("msb-first")
        if self.bayer is not None:
            parts.append(f"bayer={self.bayer}")
        parts += [f"drop={start}:{stop}" for start, stop in self.drop_columns]
        return ",".join(parts)
