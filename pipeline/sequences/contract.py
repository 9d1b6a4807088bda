"""A sequence of blurred windows, as training and evaluation read it.

The source may be a Zarr store, `.npy` voxels or `.dat` spikes that are counted when read; the
tensors are the same. Letters in shapes: N windows of the sequence, T windows read, K bins, H and W
pixels of the images, h and w pixels of the voxels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import numpy as np

from ..frames.images import FrameType
from ..spikes.counts import samples_per_bin
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
    has_spikes: bool
    """Whether the spikes themselves can be read, not only counts."""
    is_remote: bool
    """Whether reads wait for a network; several at once then take the time of one."""
    windows_are_raw: bool
    """Whether voxels are integer counts; else they are float32 with log1p already taken."""
    voxel_dtype: str
    """uint8, or uint16 where a bin can exceed 255; float32 where not raw, or with a sensor."""
    sensor: PixelCorrection | None
    """How the pixels differ, which `voxels` corrects; single spikes stay as they are. Not there:
    they are taken as equal; see `sensor_of`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.seq!r}, {self.length} windows, {self.bins} bins)"

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
        self._require_sharp()
        frames = self._box(start, stop, *box, self.frame_shape)
        begun = [self._begin_frames(kind, start, stop, frames) for kind in _FRAMES]
        # Voxels first, since they are computed: local frames come meanwhile.
        calls: list[Callable[[], np.ndarray]] = [partial(self.voxels, start, stop, *small), *begun]
        voxels, blur, sharp = together(calls, side_by_side=self.is_remote)
        return blur, sharp, voxels

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
        if not self.has_spikes:
            raise StoreError(
                f"{self.seq}: expected spikes, found counts in bins; voxelize again with "
                "--kind packed"
            )
        box = self._box(window, window + 1, rows, columns, self.voxel_shape)
        return self._read_spikes(window, beside, box)

    @abstractmethod
    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        """Read a box of voxels."""

    @abstractmethod
    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        """Read a box of frames."""

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

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        """Read a box of spikes; called where there are some."""
        raise NotImplementedError

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
