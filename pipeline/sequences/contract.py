"""A sequence of blurred windows, as training and evaluation read it.

The source may be a Zarr store, `.npy` voxels or `.dat` spikes that are counted when read; the
tensors are the same. Letters in shapes: N windows of the sequence, T windows read, K bins, H and W
pixels of the images, h and w pixels of the voxels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np

from ..frames.images import FrameType
from ..host.reporter import counted
from ..spikes.counts import samples_per_bin
from ..spikes.intervals import HalfLight, Light, light_of_spikes
from ..spikes.packed import pack_bits
from ..spikes.sensor import PixelCorrection
from ..storage.base import StoreError
from ..storage.side_by_side import together

Span = tuple[int, int]
"""(start, stop) of rows or columns, in pixels; 0 <= start < stop <= side."""

Range = Span | None
"""Rows or columns; None: all."""

Box = tuple[Span, Span]
"""Rows and columns."""

BoxOrAll = tuple[Range, Range]
"""Rows and columns; None: all of them."""

STREAM = "spike.dat"
"""Name of one recording for a whole sequence, in place of one `.dat` a frame; a folder's side file
gives the time of its first sample, too."""

FrameKind = Literal["blur", "sharp"]
_FRAMES: tuple[FrameKind, ...] = get_args(FrameKind)

_T = TypeVar("_T")


class KnownSamples(NamedTuple):
    """Samples around an exposure, numbered so that windows which share some agree on them."""

    first: int
    start: int
    """First sample of the exposure."""
    stop: int
    """One past the last sample."""


class WindowSequence(ABC):
    """N windows of one sequence in time order.

    The metadata are there at once; pixels are read when asked for. A sequence can be pickled, read
    in forked and spawned processes, each of which opens the files for itself, and read in several
    threads at once.

    A subclass sets the metadata and reads boxes; crops are checked here.
    """

    seq: str
    """Name: `<split>/<group>/<clip>`, or `<split>/<sequence>`."""
    bins: int
    """K, the voxel's time bins."""
    gain: float | None
    """Spikes a sample at unit luminance; None: unknown."""
    length: int
    """N, the number of windows."""
    frame_index: np.ndarray
    """(N,) int64, increasing."""
    t0: np.ndarray
    """(N,) float64, seconds: first instant of the exposure."""
    t1: np.ndarray
    """(N,) float64, seconds: last instant of the exposure, which belongs to it."""
    samples: np.ndarray
    """(N,) int64: spike samples in each window; 0 where unknown, for float32 voxels only."""
    frame_shape: tuple[int, int]
    """(H, W) of blur and sharp, in pixels."""
    frame_dtype: FrameType
    """Type of blur and sharp, whose whole range is light from 0 to 1."""
    voxel_shape: tuple[int, int]
    """(h, w) of the voxels, in pixels."""
    has_sharp: bool
    """Whether every window has a sharp frame."""
    instants: tuple[float, ...] = ()
    """When the sharp frames of `sharp_at` are, in exposures from the middle, in order of time;
    none: only `sharp` are known."""
    has_spikes: bool
    """Whether the spikes themselves can be read, not only counts."""
    is_remote: bool
    """Whether reads wait for a network; several at once then take the time of one."""
    windows_are_raw: bool
    """Whether voxels are integer counts; else they are float32 with log1p already taken."""
    voxel_dtype: str
    """uint8, or uint16 where a bin can exceed 255; float32 where not raw, or with a sensor."""
    registered: bool
    """Whether a registration brought the spikes to the frame's field. Not there: it did not."""
    sensor: PixelCorrection | None
    """How the pixels differ, which `voxels` corrects; single spikes stay as they are. Not there:
    they are taken as equal; see `sensor_of`."""

    def __repr__(self) -> str:
        size = f"{counted(self.length, 'window')}, {counted(self.bins, 'bin')}"
        return f"{type(self).__name__}({self.seq!r}, {size})"

    def voxels(
        self, start: int, stop: int, rows: Range = None, columns: Range = None
    ) -> np.ndarray:
        """Return windows [start, stop) as (T, K, h, w) of `voxel_dtype`."""
        box = self._box(start, stop, rows, columns, self.voxel_shape)
        return self._read_voxels(start, stop, box)

    def blur(self, start: int, stop: int, rows: Range = None, columns: Range = None) -> np.ndarray:
        """Return the blurred frames of windows [start, stop) as (T, H, W, 3) `frame_dtype`, RGB."""
        box = self._box(start, stop, rows, columns, self.frame_shape)
        return self._read_frames("blur", start, stop, box)

    def sharp(self, start: int, stop: int, rows: Range = None, columns: Range = None) -> np.ndarray:
        """Return the sharp frames of windows [start, stop) as (T, H, W, 3) `frame_dtype`, RGB.

        Raises:
            StoreError: the sequence has no sharp frames.
        """
        self._require_sharp()
        box = self._box(start, stop, rows, columns, self.frame_shape)
        return self._read_frames("sharp", start, stop, box)

    def sharp_at(
        self, instant: int, start: int, stop: int, rows: Range = None, columns: Range = None
    ) -> np.ndarray:
        """Return sharp frames of windows [start, stop) at one of `instants`, as `sharp` does."""
        if not 0 <= instant < len(self.instants):
            raise IndexError(f"{self.seq}: instant {instant} is not in 0:{len(self.instants)}")
        box = self._box(start, stop, rows, columns, self.frame_shape)
        return self._read_instant(instant, start, stop, box)

    def clip(
        self, start: int, stop: int, box: BoxOrAll = (None, None), small: BoxOrAll = (None, None)
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return blur, sharp and voxels of windows [start, stop), read at the same time.

        Args:
            start: first window.
            stop: one past the last window.
            box: rows and columns of the frames.
            small: rows and columns of the voxels.

        Raises:
            StoreError: the sequence has no sharp frames.
        """
        return self._with_frames(partial(self.voxels, start, stop, *small), start, stop, box)

    def packed_clip(
        self,
        start: int,
        stop: int,
        beside: float,
        box: BoxOrAll = (None, None),
        small: BoxOrAll = (None, None),
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return blur, sharp and packed spikes of windows [start, stop), read at the same time.

        Args:
            start: first window.
            stop: one past the last window.
            beside: as for `packed`.
            box: rows and columns of the frames.
            small: rows and columns of the spikes.

        Raises:
            StoreError: the sequence has no sharp frames, or counts only.
        """
        read = partial(self.packed, start, stop, beside, *small)
        return self._with_frames(read, start, stop, box)

    def _with_frames(
        self, read: Callable[[], _T], start: int, stop: int, box: BoxOrAll
    ) -> tuple[np.ndarray, np.ndarray, _T]:
        """Return blur and sharp of windows [start, stop), and what `read` returns."""
        self._require_sharp()
        frames = self._box(start, stop, *box, self.frame_shape)
        begun = [self._begin_frames(kind, start, stop, frames) for kind in _FRAMES]
        # Spikes first, since something is computed of them: local frames come meanwhile.
        calls: list[Callable[[], Any]] = [read, *begun]
        spikes, blur, sharp = together(calls, side_by_side=self.is_remote)
        return blur, sharp, spikes

    def spikes(self, window: int, rows: Range = None) -> np.ndarray:
        """Return one exposure's spikes (samples, h, w) uint8 of 0/1, upright.

        Raises:
            StoreError: the sequence has counts only.
        """
        return self.spikes_beside(window, 0, rows)[0]

    def spikes_beside(
        self, window: int, beside: int, rows: Range = None, columns: Range = None
    ) -> tuple[np.ndarray, int]:
        """Return one exposure's spikes, with up to `beside` samples before and after it.

        Returns:
            (samples, h, w) uint8 of 0/1, upright, and how many of them are before the exposure.
            There are fewer where the recording ends, or where no more are kept.

        Raises:
            StoreError: the sequence has counts only.
        """
        self._require_spikes()
        box = self._box(window, window + 1, rows, columns, self.voxel_shape)
        return self._read_spikes(window, beside, box)

    def light(
        self,
        window: int,
        beside: int,
        rows: Range = None,
        columns: Range = None,
        *,
        out: Light | HalfLight,
    ) -> None:
        """Write one exposure's light to `out` (K, h, w), from its spikes and those beside it.

        See `light_of_spikes`; the samples are those of `spikes_beside`.

        Raises:
            StoreError: the sequence has counts only.
        """
        self._require_spikes()
        box = self._box(window, window + 1, rows, columns, self.voxel_shape)
        self._read_light(window, beside, box, out)

    def packed(
        self, start: int, stop: int, beside: float, rows: Range = None, columns: Range = None
    ) -> list[np.ndarray]:
        """Return the spikes of windows [start, stop) as bits, with what is known beside them.

        Args:
            start: first window.
            stop: one past the last window.
            beside: time on each side of an exposure, as a share of it.
            rows: rows of the spikes.
            columns: columns of the spikes.

        Returns:
            For each window the samples of `known_samples`, (n, h, b) uint8, upright, of the b bytes
            that hold the columns: column x is bit x % 8, the least significant first, of byte
            x // 8 less `columns[0] // 8`. Bits outside of the columns may be set.

        Raises:
            StoreError: the sequence has counts only.
        """
        self._require_spikes()
        box = self._box(start, stop, rows, columns, self.voxel_shape)
        return self._read_packed(start, stop, beside, box)

    def known_samples(self, window: int, beside: float) -> KnownSamples:
        """Return which samples `packed` returns of a window.

        Raises:
            StoreError: the sequence can't tell, for it is none that networks are trained on.
        """
        raise self._untrainable()

    @property
    def longest_window(self) -> int:
        """Spike samples of the longest window."""
        return int(self.samples.max())

    @abstractmethod
    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        """Read a box of voxels."""

    @abstractmethod
    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        """Read a box of frames."""

    def _read_instant(self, instant: int, start: int, stop: int, box: Box) -> np.ndarray:
        """Read a box of sharp frames at an instant; called where there are some."""
        raise NotImplementedError

    def _of_equal_pixels(
        self, read: Callable[[int, int, Box], np.ndarray], start: int, stop: int, box: Box
    ) -> np.ndarray:
        """Return a box of voxels, corrected; `read` returns them as they were recorded."""
        sensor = sensor_of(self)
        if sensor is None:
            return read(start, stop, box)
        planes = read(start, stop, sensor.around(*box))
        each = [samples_per_bin(int(n), self.bins) for n in self.samples[start:stop]]
        return sensor.corrected(planes, np.stack(each), *box)

    def _begin_frames(
        self, kind: FrameKind, start: int, stop: int, box: Box
    ) -> Callable[[], np.ndarray]:
        """Begin to read a box of frames, if that is possible; return what waits for it."""
        return partial(self._read_frames, kind, start, stop, box)

    def _require_sharp(self) -> None:
        if not self.has_sharp:
            raise StoreError(
                f"{self.seq}: no sharp frames here; take a split that has them for training and "
                "evaluation"
            )

    def _require_spikes(self) -> None:
        if not self.has_spikes:
            raise StoreError(
                f"{self.seq}: expected spikes, found counts in bins; voxelize again with "
                "--kind packed"
            )

    def _untrainable(self) -> StoreError:
        return StoreError(
            f"{self.seq}: expected a sequence of a store or of the unified layout, by which "
            f"networks are trained, found {type(self).__name__}; voxelize it"
        )

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        """Read a box of spikes; called where there are some."""
        raise NotImplementedError

    def _read_packed(self, start: int, stop: int, beside: float, box: Box) -> list[np.ndarray]:
        """Read the bytes of a box of spikes; called where there are some."""
        rows, (first, last) = box
        whole = (first // 8 * 8, min(-(-last // 8) * 8, self.voxel_shape[1]))
        return [
            pack_bits(self._read_spikes(i, int(beside * self.samples[i]), (rows, whole))[0])
            for i in range(start, stop)
        ]

    def _read_light(self, window: int, beside: int, box: Box, out: Light | HalfLight) -> None:
        """Write the light of a box; called where there are spikes."""
        spikes, before = self._read_spikes(window, beside, box)
        light_of_spikes(spikes, self.bins, before, int(self.samples[window]), out=out)

    def _box(
        self, start: int, stop: int, rows: Range, columns: Range, shape: tuple[int, int]
    ) -> Box:
        """Return rows and columns as spans; refuse what NumPy would quietly cut short."""
        if not 0 <= start < stop <= self.length:
            raise IndexError(f"{self.seq}: windows {start}:{stop} are not in 0:{self.length}")
        spans = []
        for span, side in zip((rows, columns), shape, strict=True):
            first, last = (0, side) if span is None else span
            if not 0 <= first < last <= side:
                raise IndexError(f"{self.seq}: pixels {first}:{last} are not in 0:{side}")
            spans.append((first, last))
        return spans[0], spans[1]


def sensor_of(windows: WindowSequence) -> PixelCorrection | None:
    """Return how the pixels of a sequence differ, whatever reads it; None: taken as equal."""
    sensor: PixelCorrection | None = getattr(windows, "sensor", None)
    return sensor
