"""One recording: a folder of blurred frames and one spike stream, nothing voxelized.

Both are read as a `WindowSequence`, spikes counted when asked for.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..frames.images import read_rgb, to_uint8
from ..spikes.reconstruct import sdm
from ..spikes.registration import open_spikes
from ..spikes.settings import SpikeSettings
from .contract import Span

_FRAMES_KEPT = 8


class RecordingError(SpikeDeblurError):
    """Blurred frames and spikes can't be brought together."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One blurred frame and when it was exposed."""

    path: Path
    frame_index: int
    t0: float
    """In seconds."""
    t1: float
    """In seconds; it belongs to the exposure."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Blurred frames, when they were exposed, and one spike stream that holds all exposures."""

    seq: str
    exposures: Sequence[Exposure]
    dat: Path
    settings: SpikeSettings


class RecordingSequence:
    """Blurred frames and their spikes; see `WindowSequence`. Has no sharp frames."""

    has_sharp = False
    has_spikes = True
    is_remote = False
    windows_are_raw = True

    def __init__(
        self,
        seq: str,
        exposures: Sequence[Exposure],
        dat: str | os.PathLike[str],
        settings: SpikeSettings,
        bins: int | None,
        *,
        at: float = 0.0,
    ) -> None:
        """Check that every exposure lies inside the recording.

        Another instant than an exposure's middle gets a window around it, as long as the exposure
        or as far as the recording reaches on both sides, and the blurred frame of that window:
        the exposure's own, times the spikes' rate there over their rate in the exposure.

        Args:
            seq: the recording's name.
            exposures: in order of time, at least one.
            dat: the spike stream.
            settings: of the stream.
            bins: K; None: 32, or one a sample where an exposure holds fewer.
            at: the instant, from the exposure's middle, in exposures; -0.5 to 0.5.

        Raises:
            SpikeDeblurError: an exposure outside the recording or with fewer samples than bins,
                or a first frame that can't be read.
        """
        self.seq = seq
        self.gain = settings.gain
        self._file = open_spikes(Path(dat), settings.geometry, settings.registration)
        self._exposures = tuple(exposures)
        self._spans = [
            settings.clock.require_inside(
                e.t0, e.t1, self._file.n_frames, f"{dat}, frame {e.path.name}"
            )
            for e in exposures
        ]
        self._own_spans = self._spans
        if at:
            self._spans = [_span_around(span, at, self._file.n_frames) for span in self._spans]
        fewest = min(stop - start for start, stop in self._spans)
        self.bins = min(32, fewest) if bins is None else bins
        if fewest < self.bins:
            raise RecordingError(
                f"{dat}: an exposure holds {fewest} spike samples at {settings.rate:g} Hz, but "
                f"the model was trained with {self.bins} bins; check exposure, fps and rate, ask "
                "for fewer --frames-per-exposure, or use --method sdm"
            )
        self.frame_shape: tuple[int, int] = read_rgb(exposures[0].path).shape[:2]
        self.voxel_shape = settings.geometry.shape
        where = settings.registration
        if where is not None and where.frame_shape != self.frame_shape:
            raise RecordingError(
                f"{exposures[0].path}: expected frames of {where.frame_shape}, for which the "
                f"spikes are registered, found {self.frame_shape}"
            )
        self._frames: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()

    @property
    def length(self) -> int:
        """N."""
        return len(self._exposures)

    @property
    def exposures(self) -> tuple[Exposure, ...]:
        """The frames, in order of time."""
        return self._exposures

    @property
    def frame_index(self) -> np.ndarray:
        """(N,) int64."""
        return np.array([e.frame_index for e in self._exposures], np.int64)

    @property
    def t0(self) -> np.ndarray:
        """(N,) float64, seconds."""
        return np.array([e.t0 for e in self._exposures], np.float64)

    @property
    def t1(self) -> np.ndarray:
        """(N,) float64, seconds."""
        return np.array([e.t1 for e in self._exposures], np.float64)

    @property
    def samples(self) -> np.ndarray:
        """(N,) int64."""
        return np.array([stop - start for start, stop in self._spans], np.int64)

    @property
    def voxel_dtype(self) -> str:
        """uint8, or uint16 where a bin can exceed 255."""
        return "uint16" if -(-int(self.samples.max()) // self.bins) > 255 else "uint8"

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return raw counts (T, K, h, w), uint8 or uint16."""
        counts = [
            self._file.counts(self.bins, *span, rows=rows, columns=columns)
            for span in self._spans[start:stop]
        ]
        return np.stack(counts)

    def blur(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return blurred frames (T, H, W, 3) uint8."""
        y, x = (slice(None) if span is None else slice(*span) for span in (rows, columns))
        return np.stack([self._frame(i)[y, x] for i in range(start, stop)])

    def sharp(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Refuse: a recording has no sharp frames."""
        raise RecordingError(f"{self.seq}: no sharp frames in a recording")

    def spikes(self, window: int, rows: Span | None = None) -> npt.NDArray[np.uint8]:
        """Return one exposure's spikes (samples, h, w) uint8 of 0/1, upright."""
        return self._file.read(*self._spans[window], rows)

    def spikes_beside(
        self, window: int, beside: int, rows: Span | None = None, columns: Span | None = None
    ) -> tuple[npt.NDArray[np.uint8], int]:
        """Return one exposure's spikes, with some before and after it; see `SpikeWindows`."""
        start, stop = self._spans[window]
        first, last = max(0, start - beside), min(stop + beside, self._file.n_frames)
        return self._file.read(first, last, rows, columns), start - first

    def _frame(self, i: int) -> npt.NDArray[np.uint8]:
        # Tiles of one clip ask for the same few frames again and again.
        if i not in self._frames:
            self._frames[i] = self._moved(i, read_rgb(self._exposures[i].path, self.frame_shape))
            if len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._frames.move_to_end(i)
        return self._frames[i]

    def _moved(self, i: int, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the blurred frame (H, W, 3) of the window around the instant wanted."""
        if self._spans[i] == self._own_spans[i]:
            return frame
        there, own = (
            self._file.counts(1, *span)[0] / np.float32(span[1] - span[0])
            for span in (self._spans[i], self._own_spans[i])
        )
        blur = np.asarray(frame / np.float32(255), np.float32)
        return to_uint8(sdm(blur, there, own))


def _span_around(own: Span, at: float, samples: int) -> Span:
    """Return samples [start, stop) around an instant, inside a recording."""
    start, stop = own
    middle = (start + stop) / 2 + at * (stop - start)
    half = min((stop - start) / 2, middle, samples - middle)
    return round(middle - half), round(middle + half)
