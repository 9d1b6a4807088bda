"""Frames and spikes in memory, read as a `WindowSequence`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..clocks.exposures import FEWEST_SAMPLES
from ..frames.images import DeepRGB, to_uint16
from ..host.reporter import counted
from ..spikes.bounds import LEAST_GAIN, MOST_GAIN
from ..spikes.reference import spike_to_voxel
from ..store.schema import voxel_type
from .contract import Box, FrameKind, WindowSequence
from .recording import MOST_BINS

Array = npt.NDArray[Any]


class ArrayError(SpikeDeblurError):
    """Arrays that are not frames and spikes of one recording; names the array."""


class ArraySequence(WindowSequence):
    """Windows of frames and spikes in memory, which have no sharp frames.

    Times are in samples. Where each exposure has spikes of its own, it is not known how far they
    are from each other, so none is read beside them.
    """

    seq = "arrays"
    has_sharp = False
    has_spikes = True
    is_remote = False
    windows_are_raw = True

    def __init__(
        self,
        frames: Array,
        spikes: Array,
        exposures: Array | None = None,
        gain: float | None = None,
        bins: int | None = None,
    ) -> None:
        """Check the arrays.

        Args:
            frames: (N, H, W, 3) uint8 or uint16, or floating in [0, 1], which is rounded to 16
                bits; blurred, RGB, in order of time.
            spikes: 0 and 1 of any type, upright: (S, h, w) with `exposures`, else (N, T, h, w).
            exposures: (N, 2) integer, first and last sample of each exposure; the last belongs to
                it.
            gain: spikes a sample at unit luminance; None: unknown.
            bins: K; None: `MOST_BINS`, or one a sample where an exposure holds fewer.

        Raises:
            ArrayError: another shape, type or range.
        """
        self._frames = _checked_frames(frames)
        self.length, *size, _ = self._frames.shape
        self.frame_shape = (size[0], size[1])
        self.frame_dtype = "uint8" if self._frames.dtype == np.uint8 else "uint16"
        self._spikes = _checked_spikes(spikes)
        if exposures is None:
            self._require_own_spikes()
            _require_samples(self._spikes.shape[1], "spikes: those of each exposure")
            self._spans = [(0, self._spikes.shape[1])] * self.length
            self.t0 = self.t1 = np.zeros(self.length)
        else:
            self._spans = _checked_exposures(exposures, self.length, self._spikes)
            self.t0, self.t1 = np.asarray(exposures, np.float64).T
        self._own = exposures is None
        self.voxel_shape = (self._spikes.shape[-2], self._spikes.shape[-1])
        self.frame_index = np.arange(self.length)
        self.samples = np.array([stop - start for start, stop in self._spans], np.int64)
        fewest = int(self.samples.min())
        self.bins = min(MOST_BINS, fewest) if bins is None else bins
        if fewest < self.bins:
            raise ArrayError(
                f"exposures: expected at least {counted(self.bins, 'spike sample')} in each, as "
                f'many as the model has bins, found {fewest}; use method="sdm" or "path"'
            )
        self.voxel_dtype = voxel_type(int(self.samples.max()), self.bins)
        self.gain = _checked_gain(gain)

    def _require_own_spikes(self) -> None:
        if self._spikes.ndim == 3:
            raise ArrayError(
                f"spikes: found one stream {self._spikes.shape}; give exposures=(N, 2), the first "
                "and last sample of each frame's exposure"
            )
        if len(self._spikes) != self.length:
            raise ArrayError(
                f"spikes: expected those of {counted(self.length, 'exposure')} (N, T, h, w), one "
                f"for each frame, found {self._spikes.shape}"
            )

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        counts = [
            spike_to_voxel(self._read_spikes(i, 0, box)[0], self.bins) for i in range(start, stop)
        ]
        return np.stack(counts).astype(self.voxel_dtype)

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        return self._frames[start:stop, slice(*box[0]), slice(*box[1])]

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        stream = self._spikes[window] if self._own else self._spikes
        start, stop = self._spans[window]
        first, last = max(0, start - beside), min(stop + beside, len(stream))
        part = stream[first:last, slice(*box[0]), slice(*box[1])]
        return np.ascontiguousarray(part, np.uint8), start - first


def _checked_frames(frames: Array) -> DeepRGB:
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        hint = "; a single frame is frames[None]" if frames.ndim == 3 else ""
        raise ArrayError(f"frames: expected (N, H, W, 3), found {frames.shape}{hint}")
    if frames.dtype in (np.uint8, np.uint16):
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise ArrayError(
            f"frames: expected uint8, uint16, or floating in [0, 1], found {frames.dtype}"
        )
    least, most = float(frames.min()), float(frames.max())
    if not (least >= 0 and most <= 1):  # NaN, too
        raise ArrayError(
            f"frames: expected floating values in [0, 1], found {least:g} to {most:g}; divide "
            "them by their white, or give uint8"
        )
    return to_uint16(frames)


def _checked_spikes(spikes: Array) -> Array:
    if spikes.ndim not in (3, 4) or 0 in spikes.shape:
        raise ArrayError(
            "spikes: expected a stream (S, h, w), or (N, T, h, w), each exposure's own, found "
            f"{spikes.shape}"
        )
    if spikes.dtype.kind not in "biuf":
        raise ArrayError(
            f"spikes: expected 0 and 1 as integers, booleans or floating, found {spikes.dtype}; "
            "convert them by astype(numpy.uint8)"
        )
    if spikes.dtype != np.bool_:
        least, most = spikes.min(), spikes.max()
        whole = np.issubdtype(spikes.dtype, np.integer) or bool(
            ((spikes == 0) | (spikes == 1)).all()
        )
        if not (whole and least >= 0 and most <= 1):
            raise ArrayError(
                f"spikes: expected 0 and 1, found {spikes.dtype} from {least:g} to {most:g}; "
                "counts in bins do not tell when spikes were: give every sample, as "
                "spikedeblur.read_spikes returns them"
            )
    return spikes


def _checked_exposures(exposures: Array, number: int, stream: Array) -> list[tuple[int, int]]:
    if stream.ndim != 3:
        raise ArrayError(
            f"exposures: they are of a stream (S, h, w), and spikes are {stream.shape}; leave "
            "exposures out"
        )
    found = np.asarray(exposures)
    if found.shape != (number, 2) or not np.issubdtype(found.dtype, np.integer):
        raise ArrayError(
            f"exposures: expected ({number}, 2) integers, the first and last sample of each "
            f"frame, found {found.shape} {found.dtype}"
        )
    spans = [(int(first), int(last) + 1) for first, last in found]
    for i, (start, stop) in enumerate(spans):
        if not 0 <= start < stop <= len(stream):
            raise ArrayError(
                f"exposures: that of frame {i}, samples {start} to {stop - 1}, is not inside the "
                f"stream's 0 to {len(stream) - 1}"
            )
        _require_samples(stop - start, f"exposures: that of frame {i}")
    if any(after <= before for (before, _), (after, _) in itertools.pairwise(spans)):
        raise ArrayError("exposures: expected frames in order of time; sort frames and exposures")
    return spans


def _require_samples(number: int, which: str) -> None:
    if number < FEWEST_SAMPLES:
        raise ArrayError(
            f"{which}: expected at least {FEWEST_SAMPLES} samples, since one shows no motion, "
            f"found {number}; give the whole exposure"
        )


def _checked_gain(gain: Any) -> float | None:
    if gain is None:
        return None
    try:
        value = float(gain)
    except (TypeError, ValueError):
        value = np.nan
    if not LEAST_GAIN <= value <= MOST_GAIN:
        raise ArrayError(
            f"gain: expected spikes a sample above 0 ({LEAST_GAIN:g} to {MOST_GAIN:g}), or None, "
            f"got {gain!r}"
        )
    return value
