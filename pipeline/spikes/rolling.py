"""Spikes as a camera with a rolling shutter sees them, whose rows are exposed one after another.

Row r of the H rows of a frame is exposed `readout * r / (H - 1)` later than row 0. Here, sample j
of each row is the recording's sample j plus the row's delay, so that all times are those of row 0
and no reader needs to know of the shutter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .clock import SpikeWindowError, round_half_up
from .counts import MOST_IN_BIN, count_type, count_windows
from .dat import SpikeFile
from .geometry import SpikeGeometry
from .packed import Bytes, Range, Region, pack_bits
from .parts import SpikeParts, open_stream
from .registration import RegisteredSpikes, Registration

Delays = npt.NDArray[np.int64]
"""(h,) samples by which each row of spikes is exposed later than row 0 of the frame."""

_AT_ONCE_BYTES = 1 << 24


def row_delays(readout: float | None, rate: float, height: int, frame_height: int) -> Delays | None:
    """Return the delay of each row of spikes, in samples; None: all rows are exposed at once.

    Args:
        readout: time from the frame's first row to its last one, in seconds; less than 0: the last
            row comes first. None: a global shutter.
        rate: spike samples a second, in Hz.
        height: rows of the spikes, which lie over the whole frame.
        frame_height: rows of the frame.
    """
    if readout is None:
        return None
    frame_rows = (np.arange(height) + 0.5) * frame_height / height - 0.5
    return delays_at(frame_rows, readout, rate, frame_height)


def delays_at(
    frame_rows: npt.NDArray[np.floating], readout: float, rate: float, frame_height: int
) -> Delays | None:
    """Return the delays of rows of spikes that look at rows of the frame; None: there are none."""
    shares = np.clip(frame_rows, 0, frame_height - 1) / max(1, frame_height - 1)
    delays = np.array([round_half_up(readout * rate * share) for share in shares], np.int64)
    return delays if delays.any() else None


class RolledSpikes:
    """A spike stream seen by a rolling shutter; reads as `SpikeFile` does.

    Args:
        file: the stream, perhaps registered to the frames.
        delays: delay of each of its rows.
    """

    def __init__(self, file: SpikeFile | SpikeParts | RegisteredSpikes, delays: Delays) -> None:
        if delays.shape != file.geometry.shape[:1]:
            raise SpikeWindowError(
                f"{file.path}: expected a delay for each of {file.geometry.shape[0]} rows, got "
                f"{delays.shape}"
            )
        self.path, self.geometry, self.n_frames = file.path, file.geometry, file.n_frames
        self.whole = (
            max(0, -int(delays.min())),
            min(file.n_frames, file.n_frames - int(delays.max())),
        )
        """Samples [start, stop) of which each row is in the recording."""
        self._file, self._delays = file, delays

    def read(
        self, start: int = 0, stop: int | None = None, rows: Range = None, columns: Range = None
    ) -> npt.NDArray[np.uint8]:
        """Return spikes (T, h, w) uint8 of 0/1, as `SpikeFile.read` does."""
        stop = self.n_frames if stop is None else stop
        parts = [
            self._file.read(start + late, stop + late, band, columns)
            for band, late in self._bands(rows)
        ]
        return np.concatenate(parts, axis=1)

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
        """Return counts (K, h, w) uint8 or uint16, as `SpikeFile.counts` does."""
        stop = self.n_frames if stop is None else stop
        if out is None:
            shape = Region.of(self.geometry, rows, columns).shape
            out = np.empty((bins, *shape), count_type(stop - start, bins))
        file = self._file
        if isinstance(file, SpikeFile) and file.is_plain:  # faster than band by band
            span, room = (start, stop), out[None]
            count_windows(
                file.data,
                self.geometry,
                bins,
                [span],
                rows,
                columns,
                delays=self._delays,
                out=room,
            )
            return out  # type: ignore[return-value]
        top = 0
        for band, late in self._bands(rows):
            bottom = top + band[1] - band[0]
            out[:, top:bottom] = file.counts(bins, start + late, stop + late, band, columns)
            top = bottom
        return out  # type: ignore[return-value]

    def tfp(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Return the mean rate of samples [start, stop), as `SpikeFile.tfp` does."""
        stop = self.n_frames if stop is None else stop
        bins = -(-(stop - start) // MOST_IN_BIN)
        counts = self.counts(bins, start, stop).sum(axis=0, dtype=np.uint32)
        return np.asarray(counts / np.float32(stop - start), np.float32)

    def count_spikes(self, start: int, stop: int) -> int:
        """Return how many spikes the samples [start, stop) hold, over all pixels."""
        bins = -(-(stop - start) // MOST_IN_BIN)
        return int(self.counts(bins, start, stop).sum(dtype=np.int64))

    def packed(self, start: int, stop: int, out: Bytes) -> None:
        """Write spikes (T, h, ceil(w / 8)) uint8 packed by rows, as `SpikeFile.packed` does."""
        for (top, bottom), late in self._bands(None):
            at_once = max(1, _AT_ONCE_BYTES // ((bottom - top) * self.geometry.shape[1]))
            for first in range(start, stop, at_once):
                last = min(first + at_once, stop)
                spikes = self._file.read(first + late, last + late, (top, bottom))
                out[first - start : last - start, top:bottom] = pack_bits(spikes)

    def _bands(self, rows: Range) -> Iterator[tuple[tuple[int, int], int]]:
        """Yield runs of rows of one delay, and that delay."""
        top, bottom = rows or (0, len(self._delays))
        late = self._delays[top:bottom].tolist()
        cuts = [0, *(i for i in range(1, len(late)) if late[i] != late[i - 1]), len(late)]
        for first, last in itertools.pairwise(cuts):
            yield (top + first, top + last), late[first]


Spikes = SpikeFile | SpikeParts | RegisteredSpikes | RolledSpikes
"""A spike stream, read in one way whatever files it is in and however its pixels look."""


def open_spikes(
    path: Path,
    geometry: SpikeGeometry,
    registration: Registration | None,
    delays: Delays | None = None,
) -> Spikes:
    """Open a stream in one file or in parts, as the colour camera sees it.

    Args:
        path: the stream.
        geometry: which bit is which pixel.
        registration: where spike pixels lie in the frames; None: both cameras see the same.
        delays: delay of each row of the registered spikes; None: all rows are exposed at once.
    """
    file = open_stream(path, geometry)
    seen = file if registration is None else RegisteredSpikes(file, registration)
    return seen if delays is None else RolledSpikes(seen, delays)


def whole_samples(spikes: Spikes) -> tuple[int, int]:
    """Return the samples [start, stop) of which each row is in the recording."""
    return spikes.whole if isinstance(spikes, RolledSpikes) else (0, spikes.n_frames)
