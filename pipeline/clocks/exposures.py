"""Exposures on the spikes' clock, and how they become windows of spike samples.

A camera exposes a frame during [start, end). A blurred frame that averages sharp frames c-h to c+h,
of which frame i is at `i / fps`, is exposed during the closed window
[(c - h) / fps, (c + h) / fps]: both end frames belong to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..host.reporter import counted
from ..spikes.clock import SpikeClock
from .durations import TimelineError, describe_duration

FEWEST_SAMPLES = 2
"""Fewest spike samples of an exposure: one sample shows no motion."""

_ROUNDING = 1e-3
"""Largest overlap of two exposures that is taken for rounding, as a share of the shorter."""

Window = tuple[float, float]
"""(t0, t1), in seconds: an exposure's first and last instant, both of which belong to it."""


def exposure_window(centre: int, exposure_frames: int, fps: float) -> Window:
    """Return (t0, t1), in seconds, of a blurred frame that averages sharp ones around `centre`.

    Args:
        centre: number of the sharp frame in the middle.
        exposure_frames: number of sharp frames that were averaged; odd, so that there is a middle.
        fps: sharp frames a second, in Hz.

    Raises:
        TimelineError: an even or non-positive exposure, or fps of 0 or less.
    """
    if exposure_frames < 1 or exposure_frames % 2 == 0:
        raise TimelineError(
            "expected an odd --exposure, so that a frame is in its middle, found "
            f"{exposure_frames}; give the number of averaged frames"
        )
    if not 0 < fps < float("inf"):
        raise TimelineError(f"expected --fps above 0, found {fps}; correct it")
    half = exposure_frames // 2
    return (centre - half) / fps, (centre + half) / fps


def instant_offsets(instants: int, exposure_frames: int, fps: float, rate: float) -> list[int]:
    """Return which sharp frames are nearest to the middles of equal parts of an exposure.

    They are the instants of `restore --frames-per-exposure`, as far as there is a frame at each.

    Args:
        instants: number of parts.
        exposure_frames: number of sharp frames that were averaged; odd.
        fps: sharp frames a second, in Hz.
        rate: spike samples a second, in Hz.

    Returns:
        Numbers of frames, counted from the one in the middle, in order of time.

    Raises:
        TimelineError: fewer than 1, or more than there are frames.
    """
    if not 1 <= instants <= exposure_frames:
        raise TimelineError(
            f"--instants: expected 1 to {exposure_frames}, the sharp frames of an exposure, found "
            f"{instants}; give fewer"
        )
    length = fps * exposure_length(exposure_frames, fps, rate)  # in frames
    middles = ((i + 0.5) / instants - 0.5 for i in range(instants))
    return [math.floor(middle * length + 0.5) for middle in middles]


def exposure_length(exposure_frames: int, fps: float, rate: float) -> float:
    """Return how long the spike samples of an averaged exposure take, in seconds."""
    return (exposure_frames - 1) / fps + 1 / rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposures:
    """When each frame of one recording was exposed, in seconds on the spikes' clock."""

    starts: tuple[float, ...]
    """First instant of each exposure, in seconds."""
    ends: tuple[float, ...]
    """End of each exposure, in seconds."""
    ends_belong: bool
    """Whether the sample at an end belongs to the exposure, as the last averaged frame's does.
    A camera's exposure is [start, end)."""
    source: str
    """What said the times, for messages."""
    remedy: str
    """What to do where an exposure leaves the recording, in the imperative."""
    instead: str
    """What to do where an exposure has no length, in the imperative."""

    @classmethod
    def averaged(cls, centres: Iterable[int], exposure: int, fps: float) -> Exposures:
        """Return the exposures of frames that average sharp ones.

        Args:
            centres: number of the sharp frame in the middle of each.
            exposure: number of sharp frames that were averaged; odd.
            fps: sharp frames a second, in Hz.

        Raises:
            TimelineError: as `exposure_window`.
        """
        exposure_window(0, exposure, fps)
        windows = [exposure_window(centre, exposure, fps) for centre in centres]
        return cls.closed(
            windows,
            source=f"an average of {counted(exposure, 'sharp frame')} at {fps:g} Hz",
            remedy="check rate, fps and the first sample's time",
            instead="for a camera's own frames give --frame-rate 30 --shutter 16ms, with its "
            "values, in place of --fps and --exposure (in a layout file: camera with frame_rate "
            "and shutter)",
        )

    @classmethod
    def closed(
        cls,
        windows: Iterable[Window],
        source: str,
        remedy: str,
        instead: str = "correct it, or align again",
    ) -> Exposures:
        """Return exposures whose last instants belong to them, as a log states them."""
        t0, t1 = tuple(zip(*windows, strict=True)) or ((), ())
        return cls(
            starts=t0, ends=t1, ends_belong=True, source=source, remedy=remedy, instead=instead
        )

    @classmethod
    def regular(
        cls, places: Sequence[int], frame_rate: float, shutter: float, start: float = 0.0
    ) -> Exposures:
        """Return the exposures of a camera that takes frames at a constant rate.

        Args:
            places: number of periods from the first exposure to each, ascending from 0.
            frame_rate: frames a second, in Hz.
            shutter: length of an exposure, in seconds.
            start: instant at which the first exposure begins, in seconds.

        Raises:
            TimelineError: a frame rate or shutter of 0 or less, or a shutter longer than the
                period.
        """
        if not 0 < frame_rate < math.inf:
            raise TimelineError(
                f"--frame-rate: expected frames a second above 0, found {frame_rate:g}; type "
                "--frame-rate 30 for a camera of 30 frames a second"
            )
        require_shutter(shutter)
        period = 1 / frame_rate
        if shutter > period * (1 + _ROUNDING):
            raise TimelineError(
                f"--shutter: expected at most {describe_duration(period)}, the period of "
                f"{frame_rate:g} frames a second, found {describe_duration(shutter)}; type its "
                f"unit, such as --shutter {_in_milliseconds(shutter, period)}, or correct "
                "--frame-rate"
            )
        starts = tuple(start + place / frame_rate for place in places)
        return cls(
            starts=starts,
            ends=tuple(at + shutter for at in starts),
            ends_belong=False,
            source=f"--frame-rate {frame_rate:g} --shutter {describe_duration(shutter)}",
            remedy="correct --frame-rate, --shutter, --start (the first exposure's), the first "
            "spike sample's time (--first, or \"first\" in the side file) or the spikes' --rate",
            instead="give a longer --shutter with its unit, such as --shutter 16ms",
        )

    @classmethod
    def measured(
        cls, starts: Sequence[float], ends: Sequence[float], names: Sequence[str], source: str
    ) -> Exposures:
        """Return exposures whose times a camera or an instrument noted.

        Args:
            starts: first instant of each, in seconds.
            ends: end of each, in seconds.
            names: what each is called in messages, such as a line of a file.
            source: what said the times, for messages.

        Raises:
            TimelineError: an exposure without length, two out of order, or two that overlap.
        """
        for name, start, end in zip(names, starts, ends, strict=True):
            if not start < end:
                raise TimelineError(
                    f"{name}: expected an exposure that ends after it starts, found "
                    f"{start:.9g} to {end:.9g} s; correct the times"
                )
        exposures = zip(names, starts, ends, strict=True)
        for (name, start, end), (later, next_start, next_end) in itertools.pairwise(exposures):
            if next_start <= start:
                raise TimelineError(
                    f"{later}: expected a time after that of {name}, {start:.9g} s, found "
                    f"{next_start:.9g} s; put frames and times in order of time"
                )
            if end - next_start > _ROUNDING * min(end - start, next_end - next_start):
                raise TimelineError(
                    f"{later}: expected an exposure that starts when that of {name} is over, at "
                    f"{end:.9g} s, found {next_start:.9g} s; correct the times, their units or "
                    "--shutter"
                )
        return cls(
            starts=tuple(starts),
            ends=tuple(ends),
            ends_belong=False,
            source=source,
            remedy="correct the times, or give --start (the first exposure's), the first spike "
            "sample's time (--first, or \"first\" in the side file) or the spikes' --rate",
            instead="correct the times and their units, or give --shutter 16ms",
        )

    @property
    def frame_rate(self) -> float:
        """Mean number of frames a second, in Hz; of one frame, exposures a second."""
        if len(self.starts) == 1:
            return 1 / (self.ends[0] - self.starts[0])
        return (len(self.starts) - 1) / (self.starts[-1] - self.starts[0])

    def only(self, place: int) -> Exposures:
        """Return the exposure of one frame, by its place among all."""
        return replace(self, starts=(self.starts[place],), ends=(self.ends[place],))

    def windows(self, clock: SpikeClock, names: Sequence[str]) -> list[Window]:
        """Return (t0, t1) of each exposure: the closed window of the samples that it takes.

        Args:
            clock: the spikes' clock.
            names: names of the frames, for messages.

        Raises:
            TimelineError: an exposure of one sample, or none; names the frame.
        """
        sample = 0.0 if self.ends_belong else 1 / clock.rate
        windows = []
        for name, start, end in zip(names, self.starts, self.ends, strict=True):
            first, stop = clock.samples(start, end - sample)
            if stop - first < FEWEST_SAMPLES:
                raise TimelineError(
                    f"{name}: expected an exposure of {FEWEST_SAMPLES} spike samples or more, "
                    f"found {max(0, stop - first)} at {clock.rate:g} Hz, by {self.source}; "
                    f"{self.instead}"
                )
            windows.append((start, end - sample))
        return windows


def require_shutter(shutter: float) -> None:
    """Refuse a shutter of 0 or less.

    Raises:
        TimelineError: it is so.
    """
    if not 0 < shutter < math.inf:
        raise TimelineError(
            f"--shutter: expected a duration above 0, found {shutter:g} s; type it with its unit, "
            "such as --shutter 16ms"
        )


def _in_milliseconds(shutter: float, period: float) -> str:
    """Return what a shutter without its unit may have been meant to be."""
    for unit, size in (("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if shutter * size <= period:
            return f"{shutter:g}{unit}"
    return "16ms"
