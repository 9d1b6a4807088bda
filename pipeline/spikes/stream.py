"""What every spike stream can tell, whatever files it is in and however its pixels look."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .clock import SpikeWindowError
from .counts import MOST_IN_BIN
from .geometry import SpikeGeometry
from .intervals import HalfLight, Light, light_of_spikes
from .packed import Bytes, Range, pack_bits

_AT_ONCE_BYTES = 1 << 24


class SpikeStream(ABC):
    """A spike stream, read in windows of samples and crops of upright pixels."""

    __slots__ = ()

    path: Path
    """The stream, for messages."""
    geometry: SpikeGeometry
    n_frames: int
    """Samples of the stream."""

    @property
    def whole(self) -> tuple[int, int]:
        """Samples [start, stop) of which each row may be read."""
        return 0, self.n_frames

    @abstractmethod
    def read(
        self,
        start: int = 0,
        stop: int | None = None,
        rows: Range = None,
        columns: Range = None,
    ) -> npt.NDArray[np.uint8]:
        """Decode samples [start, stop) of a crop: (T, h, w) uint8 of 0/1, upright.

        Raises:
            SpikeWindowError: samples outside the recording.
            SpikeGeometryError: a crop outside the image.
        """

    @abstractmethod
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
        """Count spikes of samples [start, stop) in temporal bins: (K, h, w), upright.

        uint8, or uint16 where a bin holds more than 255 samples. Raises as `count_spikes` does.
        """

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
        """Write an exposure's light to `out` (K, h, w), upright, as `light_of_packed` does."""
        (start, stop), (first, last) = exposure, known
        spikes = self.read(first, last, rows, columns)
        light_of_spikes(spikes, bins, start - first, stop - start, out=out)

    def packed(self, start: int, stop: int, out: Bytes) -> None:
        """Write samples [start, stop) to `out`, upright and packed row by row.

        Args:
            start: first sample.
            stop: one past the last.
            out: (T, H, ceil(W / 8)) uint8; pixel x of a row is bit x % 8 of byte x // 8, and bits
                past the width are 0. Dropped columns are left out.
        """
        self._checked_window(start, stop)
        at_once = max(1, _AT_ONCE_BYTES // self.geometry.pixels)
        for first in range(start, stop, at_once):
            last = min(first + at_once, stop)
            out[first - start : last - start] = pack_bits(self.read(first, last))

    def tfp(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Return the mean rate of samples [start, stop): (H, W) float32, upright.

        Raises as `count_spikes` does.
        """
        start, stop = self._checked_window(start, stop)
        return np.asarray(self._counted(start, stop) / np.float32(stop - start), np.float32)

    def count_spikes(self, start: int = 0, stop: int | None = None) -> int:
        """Return how many spikes the samples [start, stop) hold, over all pixels."""
        return int(self._counted(*self._checked_window(start, stop)).sum(dtype=np.int64))

    def _counted(self, start: int, stop: int) -> npt.NDArray[np.uint32]:
        """Return the spikes of each pixel, (H, W)."""
        bins = -(-(stop - start) // MOST_IN_BIN)
        return np.asarray(self.counts(bins, start, stop).sum(axis=0, dtype=np.uint32))

    def _checked_window(self, start: int, stop: int | None) -> tuple[int, int]:
        first, end = self.whole
        stop = end if stop is None else stop
        if not first <= start < stop <= end:
            raise SpikeWindowError(
                f"{self.path}: expected samples inside {first}:{end}, got {start}:{stop}; "
                "check the window"
            )
        return start, stop
