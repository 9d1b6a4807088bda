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

from .between import Cut
from .clock import SpikeWindowError, round_half_up
from .counts import count_type, count_windows
from .dat import SpikeFile
from .geometry import SpikeGeometry
from .packed import Range, Region
from .parts import open_stream
from .registration import RegisteredSpikes, Registration
from .stream import SpikeStream

Delays = npt.NDArray[np.int64]
"""(h,) samples by which each row of spikes is exposed later than row 0 of the frame."""


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


class RolledSpikes(SpikeStream):
    """A spike stream seen by a rolling shutter.

    Args:
        file: the stream, perhaps registered to the frames.
        delays: delay of each of its rows.
    """

    def __init__(self, file: SpikeStream, delays: Delays) -> None:
        if delays.shape != file.geometry.shape[:1]:
            raise SpikeWindowError(
                f"{file.path}: expected a delay for each of {file.geometry.shape[0]} rows, got "
                f"{delays.shape}"
            )
        self.path, self.geometry, self.n_frames = file.path, file.geometry, file.n_frames
        self._file, self._delays = file, delays

    @property
    def whole(self) -> tuple[int, int]:
        """Samples [start, stop) of which each row may be read."""
        first, last = int(self._delays.min()), int(self._delays.max())
        start, stop = self._file.whole
        return max(start, start - first), min(stop, stop - last)

    def read(
        self, start: int = 0, stop: int | None = None, rows: Range = None, columns: Range = None
    ) -> npt.NDArray[np.uint8]:
        """Decode samples [start, stop) of a crop, as `SpikeStream.read` says."""
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
        """Count spikes in temporal bins, as `SpikeStream.counts` says."""
        stop = self.n_frames if stop is None else stop
        if out is None:
            shape = Region.of(self.geometry, rows, columns).shape
            out = np.empty((bins, *shape), count_type(stop - start, bins))
        file = self._file
        if isinstance(file, SpikeFile) and file.is_plain:  # faster than band by band
            span, room = (start, stop), out[None]
            with file.held(start, stop):
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

    def _bands(self, rows: Range) -> Iterator[tuple[tuple[int, int], int]]:
        """Yield runs of rows of one delay, and that delay."""
        top, bottom = rows or (0, len(self._delays))
        late = self._delays[top:bottom].tolist()
        cuts = [0, *(i for i in range(1, len(late)) if late[i] != late[i - 1]), len(late)]
        for first, last in itertools.pairwise(cuts):
            yield (top + first, top + last), late[first]


def open_spikes(
    path: Path,
    geometry: SpikeGeometry,
    registration: Registration | None,
    delays: Delays | None = None,
    cut: Cut | None = None,
) -> SpikeStream:
    """Open a stream in one file or in parts, as the colour camera sees it.

    Args:
        path: the stream.
        geometry: which bit is which pixel.
        registration: where spike pixels lie in the frames; None: both cameras see the same.
        delays: delay of each row of the registered spikes; None: all rows are exposed at once.
        cut: the part to which reading is confined; None: all of it.
    """
    file = open_stream(path, geometry, cut)
    seen: SpikeStream = file if registration is None else RegisteredSpikes(file, registration)
    return seen if delays is None else RolledSpikes(seen, delays)
