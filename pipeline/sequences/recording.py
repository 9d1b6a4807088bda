"""One recording: blurred frames and one spike stream, read as a `WindowSequence`.

Nothing is voxelized before: spikes are counted when they are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import SpikeDeblurError
from ..frames.images import (
    DeepRGB,
    FrameType,
    as_type,
    image_shape,
    read_frame,
    to_uint8,
    to_uint16,
    to_unit,
)
from ..host.files import StrPath
from ..host.reporter import counted
from ..spikes.between import none_exposed
from ..spikes.intervals import HalfLight, Light
from ..spikes.parts import hash_samples, hash_stream, open_stream
from ..spikes.reconstruct import sdm
from ..spikes.rolling import open_spikes, row_delays
from ..spikes.settings import SpikeSettings
from ..spikes.stream import SpikeStream
from ..store.schema import voxel_type
from .contract import Box, FrameKind, Span, WindowSequence, sensor_of
from .corrected import correction
from .linear_frames import FrameCurve, as_light, frame_curve_of, light_at_ends, require_curve

MOST_BINS = 32
"""Bins of an exposure where no model says how many."""

_FRAMES_KEPT = 8
"""Number of decoded frames that a sequence keeps."""


class RecordingError(SpikeDeblurError):
    """Blurred frames and spikes can't be brought together."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One blurred frame and when it was exposed."""

    path: Path
    frame_index: int
    t0: float
    """First instant, in seconds."""
    t1: float
    """Last instant, in seconds; it belongs to the exposure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Blurred frames, when they were exposed, and one spike stream that holds all exposures."""

    seq: str
    """Name of the sequence."""
    exposures: Sequence[Exposure]
    """The frames in order of time, at least one."""
    dat: Path
    """The spike stream."""
    settings: SpikeSettings
    """Geometry, clock, gain and registration of the stream."""
    sources: Mapping[str, str | None]
    """Paths of what the recording was read from, by role, for records of products."""
    left_out: int = 0
    """Number of frames that are not exposed wholly in the part of the recording that is read."""
    frame_curve: FrameCurve = "linear"
    """What the numbers of its frames are; see `with_frame_curve`."""

    def spikes(self) -> SpikeStream:
        """Open the stream as it was recorded, confined to the part that is read."""
        return open_spikes(self.dat, self.settings.geometry, None, cut=self.settings.cut)

    def hashed_spikes(self) -> dict[str, object]:
        """Return the SHA-256 of the spikes that are read, and of which samples, for records."""
        cut = self.settings.cut
        if cut is None:
            return {"spikes_sha256": hash_stream(self.dat)}
        stream = open_stream(self.dat, self.settings.geometry, cut)
        start, stop = stream.whole
        digest = hash_samples(stream, start, stop)
        return {"spikes_sha256": digest, "spikes_samples": [start, stop]}

    def with_frame_curve(self, curve: FrameCurve | None) -> Recording:
        """Return the recording with what its frames are known to be; None: as the spikes tell.

        One to three exposures are read for it.

        Raises:
            StoreError: an unknown curve.
        """
        require_curve(curve)
        if curve is None:
            last = len(self.exposures) - 1
            some = replace(self, frame_curve="linear").only(sorted({0, last // 2, last}))
            curve = frame_curve_of(RecordingSequence(some, 1))
        return replace(self, frame_curve=curve)

    def only(self, indices: Sequence[int]) -> Recording:
        """Return the recording with some of its exposures."""
        return replace(self, exposures=[self.exposures[i] for i in indices])


def wholly_read(
    settings: SpikeSettings,
    spikes: StrPath,
    frames: Mapping[int, Path],
    windows: Sequence[tuple[float, float]],
) -> tuple[dict[int, Path], list[tuple[float, float]]]:
    """Return the frames that are exposed wholly in the part of the recording that is read.

    Args:
        settings: clock of the stream, and the part.
        spikes: the stream, for messages.
        frames: frames by number, in order of time.
        windows: exposure of each, in seconds.

    Raises:
        RecordingError: none is; names the times of the frames.
    """
    cut = settings.cut
    if cut is None:
        return dict(frames), list(windows)
    pairs = zip(frames.items(), windows, strict=True)
    held = [(frame, window) for frame, window in pairs if cut.holds(*window)]
    if not held:
        exposures = [cut.around(*window) for window in windows]
        raise RecordingError(none_exposed(spikes, cut.between, exposures))
    return dict(frame for frame, _ in held), [window for _, window in held]


class RecordingSequence(WindowSequence):
    """Windows of a recording, which has no sharp frames.

    Frames of sRGB are read as linear light of 16 bits, where the recording says what they are.

    Under a rolling shutter `t0` and `t1` are those of the frames' first row, and voxels and spikes
    are each row's own: as much later as the row is exposed.
    """

    has_sharp = False
    has_spikes = True
    is_remote = False
    windows_are_raw = True

    def __init__(self, recording: Recording, bins: int | None, *, at: float = 0.0) -> None:
        """Check that every exposure lies inside the recording.

        For another instant than the exposure's middle, the windows lie around that instant, as
        long as the exposure or as far as the recording reaches on both sides. The blurred frame of
        such a window is the exposure's own, times the spikes' rate in the window over their rate
        in the exposure.

        Args:
            recording: the frames and the spike stream.
            bins: K; None: MOST_BINS, or one a sample where an exposure holds fewer.
            at: the instant, from the exposure's middle, in exposures; -0.5 to 0.5.

        Raises:
            SpikeDeblurError: an exposure outside the recording or with fewer samples than bins,
                or a first frame that can't be read.
        """
        settings, dat, exposures = recording.settings, recording.dat, recording.exposures
        self.seq = recording.seq
        self.gain = settings.gain
        self._paths = [exposure.path for exposure in exposures]
        delays = None
        if settings.readout is not None:
            rows, frame_rows = settings.geometry.shape[0], image_shape(self._paths[0])[0]
            delays = row_delays(settings.readout, settings.rate, rows, frame_rows)
        self._file = open_spikes(
            dat, settings.geometry, settings.registration, delays, settings.cut
        )
        self._exposed = [
            settings.clock.require_inside(
                e.t0, e.t1, self._file.n_frames, f"{dat}, frame {e.path.name}"
            )
            for e in exposures
        ]
        self._whole = self._file.whole
        self._spans = [_span_around(span, at, self._whole) for span in self._exposed]
        self.length = len(exposures)
        self.frame_index = np.array([e.frame_index for e in exposures], np.int64)
        clock = settings.clock
        windows = [
            (e.t0, e.t1)
            if span == exposed
            else (clock.first + span[0] / clock.rate, clock.first + (span[1] - 1) / clock.rate)
            for e, span, exposed in zip(exposures, self._spans, self._exposed, strict=True)
        ]
        self.t0, self.t1 = np.array(windows, np.float64).T
        self.samples = np.array([stop - start for start, stop in self._spans], np.int64)
        fewest = int(self.samples.min())
        self.bins = min(MOST_BINS, fewest) if bins is None else bins
        if fewest < self.bins:
            raise RecordingError(
                f"{dat}: an exposure holds {counted(fewest, 'spike sample')} at "
                f"{settings.rate:g} Hz, but the model was trained with "
                f"{counted(self.bins, 'bin')}; check the frames' times and rate, "
                "ask for fewer --frames-per-exposure, or use --method sdm"
            )
        self.voxel_dtype = voxel_type(int(self.samples.max()), self.bins)
        first = read_frame(self._paths[0])
        self.frame_shape = first.shape[:2]
        self._code_dtype: FrameType = "uint8" if first.dtype == np.uint8 else "uint16"
        self.frame_dtype = self._code_dtype
        self.frame_curve = recording.frame_curve
        if self.frame_curve == "srgb":
            self.frame_dtype = "uint16"
            self.ends = light_at_ends(self._code_dtype)
        self.voxel_shape = settings.geometry.shape
        where = settings.registration
        self.registered = where is not None
        if where is not None and where.frame_shape != self.frame_shape:
            raise RecordingError(
                f"{self._paths[0]}: expected frames of {where.frame_shape}, for which the "
                f"spikes are registered, found {self.frame_shape}; correct the calibration, or "
                "align again"
            )
        self._frames: OrderedDict[int, DeepRGB] = OrderedDict()
        if settings.sensor is not None:
            self.sensor = correction(settings.sensor, dat, settings)
            self.voxel_dtype = "float32"

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        return self._of_equal_pixels(self.recorded_counts, start, stop, box)

    def recorded_counts(self, start: int, stop: int, box: Box) -> np.ndarray:
        """Return a box of voxels (T, K, h, w) as the camera's pixels made them."""
        spans = self._spans[start:stop]
        return np.stack([self._file.counts(self.bins, *span, *box) for span in spans])

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        return np.stack(
            [self._frame(i)[slice(*box[0]), slice(*box[1])] for i in range(start, stop)]
        )

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        start, stop = self._spans[window]
        first, last = max(self._whole[0], start - beside), min(stop + beside, self._whole[1])
        return self._file.read(first, last, *box), start - first

    def _read_light(self, window: int, beside: int, box: Box, out: Light | HalfLight) -> None:
        start, stop = self._spans[window]
        known = max(self._whole[0], start - beside), min(stop + beside, self._whole[1])
        self._file.light(self.bins, (start, stop), known, *box, out=out)

    def _frame(self, i: int) -> DeepRGB:
        # Tiles of one clip ask for the same few frames again and again.
        if i not in self._frames:
            frame = read_frame(self._paths[i], self.frame_shape)
            codes = as_type(frame, self._code_dtype, self._paths[i])
            light = as_light(codes) if self.frame_curve == "srgb" else codes
            self._frames[i] = self._moved(i, light)
            if len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._frames.move_to_end(i)
        return self._frames[i]

    def _moved(self, i: int, frame: DeepRGB) -> DeepRGB:
        """Return the blurred frame (H, W, 3) of window `i`, from that of its exposure."""
        if self._spans[i] == self._exposed[i]:
            return frame
        in_window, in_exposure = (self._rates(*span) for span in (self._spans[i], self._exposed[i]))
        moved = sdm(to_unit(frame), in_window, in_exposure)
        return to_uint8(moved) if frame.dtype == np.uint8 else to_uint16(moved)

    def _rates(self, start: int, stop: int) -> np.ndarray:
        """Return the spikes a sample (h, w) of a span of samples."""
        rates = self._file.counts(1, start, stop)[0] / np.float32(stop - start)
        sensor = sensor_of(self)
        return rates if sensor is None else sensor.corrected(rates, 1)


def _span_around(exposed: Span, at: float, whole: Span) -> Span:
    """Return samples [start, stop) around an instant, inside those that a recording has."""
    start, stop = exposed
    middle = (start + stop) / 2 + at * (stop - start)
    half = min((stop - start) / 2, middle - whole[0], whole[1] - middle)
    return round(middle - half), round(middle + half)
