"""What every method promises, and how the frames of a sequence are restored by one.

Letters in shapes: N windows of a sequence, T windows of a clip, K bins, H and W the frames'
pixels, h and w the spikes'.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..frames.images import to_uint8, to_uint16
from ..sequences.contract import WindowSequence
from ..sequences.linear_frames import in_codes
from ..spikes.camera import luminance

Frames = npt.NDArray[np.float32]


class MethodError(SpikeDeblurError):
    """A sequence lacks what a method needs."""


@dataclass(frozen=True, slots=True)
class MethodClip:
    """Windows [start, stop) seen together, of which [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Followed(Protocol):
    """How the exposures of a sequence move."""

    def expect(self, windows: Sequence[int]) -> None:
        """Hear of which windows frames will be asked for, in order."""

    def moved(self, window: int, middles: Mapping[int, Frames], time: float) -> Frames:
        """Return a window's frame (H, W, 3) at another instant than its exposure's middle.

        Args:
            window: index of the window.
            middles: (H, W, 3), the frames at the middles of the window and of those beside it, as
                far as there are some, whatever method restored them.
            time: the instant, in exposures from the middle; -1/2 to 1/2.
        """


class Shared(Protocol):
    """What methods that restore the same windows share; `shared.SharedExposures` is one."""

    heard: Callable[[str, str], None]
    """Called after each part of the methods' work, with its kind, of `parts.GUESSES`, and its
    name."""


class Method(ABC):
    """Turns windows of one sequence into sharp frames, at the middles of their exposures."""

    name: str
    """One of `make_method.METHODS`."""

    clip_len: int
    """Number of windows that it sees together."""

    @abstractmethod
    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return the kept windows' frames (T, H, W, 3) float32 RGB, about in [0, 1].

        Raises:
            MethodError: the sequence lacks what the method needs.
        """

    asked_at_instants: bool = False
    """Whether frames at other instants than the middle are asked of it, by `at`; else those of the
    middle are moved."""

    def at(self, windows: WindowSequence, clip: MethodClip, time: float) -> Frames:
        """Return the kept windows' frames at an instant, as a call does those of the middle.

        Methods that are not `asked_at_instants` have none to give, and are never called so.

        Args:
            windows: the sequence, whose motion it follows.
            clip: windows seen together.
            time: the instant, in exposures from the middle; -1/2 to 1/2.

        Returns:
            (T, H, W, 3) float32 RGB, about in [0, 1].
        """
        raise NotImplementedError

    shared: Shared | None = None
    """What it may share with other methods; None: it has nothing to share."""

    def exposures(self, windows: WindowSequence) -> Followed | None:
        """Return how exposures of a sequence move, which tells frames at their other instants.

        None: the method does not follow motion there.
        """
        return None

    def measured_gains(self, windows: WindowSequence) -> Sequence[float]:
        """Return gains that the method measured itself, whatever is recorded; NaN: no light."""
        return ()

    def passes(self, windows: WindowSequence) -> int:
        """Return in how many parts a network works on a clip; 0: there is none."""
        return 0


def restored_frames(
    method: Method,
    windows: WindowSequence,
    wanted: Callable[[int], bool] = lambda window: True,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield (window, frame (H, W, 3)) in order; clips with no wanted window are skipped.

    Raises:
        MethodError: the method can't work on the sequence, or gave values that are no numbers.
    """
    for window, frame in _restored(method, windows, wanted):
        yield window, to_uint8(in_codes(windows, frame))


def restored_instants(
    method: Method,
    windows: WindowSequence,
    times: Sequence[float],
    wanted: Sequence[Sequence[bool]],
    bits: Literal[8, 16] = 8,
    headroom: float = 1.0,
) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Yield (window, i, frame (H, W, 3)) at the instants of each window, in order of time.

    Frames are uint8, or with 16 `bits` uint16; the whole range is light from 0 to `headroom`.

    Args:
        method: follows the sequence's motion, unless the middle is the only instant.
        windows: the sequence.
        times: the instants, in exposures from the middle; -1/2 to 1/2.
        wanted: of each window, which instants are.
        bits: bits of a channel.
        headroom: brightest light that a frame can show, 1 being white.

    Raises:
        MethodError: the method can't work on the sequence, or gave values that are no numbers.
    """
    rounded = to_uint8 if bits == 8 else to_uint16
    if method.asked_at_instants and any(times):
        yield from _asked(
            method,
            windows,
            times,
            wanted,
            lambda frame: rounded(_within(in_codes(windows, frame), headroom)),
        )
        return
    exposures = None if len(times) == 1 else method.exposures(windows)
    needed = with_middles(wanted)
    middles: dict[int, Frames] = {}
    last = max(filter(needed, range(windows.length)), default=0)
    for newest, middle in _restored(method, windows, needed):
        middles[newest] = middle
        # A window waits for the one after it, whose frame tells the end of its exposure.
        ready = [newest - 1, newest] if newest == last else [newest - 1]
        for window in ready if len(times) > 1 else [newest]:
            if window not in middles or not any(wanted[window]):
                continue
            for i, time in enumerate(times):
                if wanted[window][i]:
                    frame = middles[window]
                    if time != 0:
                        assert exposures is not None
                        frame = exposures.moved(window, middles, time)
                    frame = in_codes(windows, frame)
                    yield window, i, rounded(_within(frame, headroom))
        middles = {i: frame for i, frame in middles.items() if i >= newest - 1}


def _within(frame: Frames, headroom: float) -> Frames:
    """Return a frame of light up to `headroom` as one of light up to 1."""
    return frame if headroom == 1 else frame / np.float32(headroom)


def _asked(
    method: Method,
    windows: WindowSequence,
    times: Sequence[float],
    wanted: Sequence[Sequence[bool]],
    rounded: Callable[[Frames], npt.NDArray[Any]],
) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Yield what `restored_instants` does, of a method that is asked for each instant."""
    for clip in _planned(method, windows, lambda window: any(wanted[window]), beside=1):
        kept = range(clip.keep_start, clip.keep_stop)
        found: dict[tuple[int, int], npt.NDArray[Any]] = {}
        for i, time in enumerate(times):
            if any(wanted[window][i] for window in kept):
                for window, frame in _frames_of(method, windows, clip, time):
                    found[window, i] = rounded(frame)
        for window in kept:
            for i, is_wanted in enumerate(wanted[window]):
                if is_wanted:
                    yield window, i, found[window, i]


def with_middles(wanted: Sequence[Sequence[bool]]) -> Callable[[int], bool]:
    """Return of which windows `restored_instants` restores the middle.

    Those are the wanted ones and, where there are several instants, those beside them: so a run
    that was stopped goes on with the same frames.

    Args:
        wanted: of each window, which instants are.
    """
    beside = 1 if wanted and len(wanted[0]) > 1 else 0

    def needed(window: int) -> bool:
        return any(map(any, wanted[max(0, window - beside) : window + beside + 1]))

    return needed


def _restored(
    method: Method, windows: WindowSequence, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, Frames]]:
    for clip in _planned(method, windows, wanted):
        for window, frame in _frames_of(method, windows, clip):
            if wanted(window):
                yield window, frame


def _planned(
    method: Method, windows: WindowSequence, wanted: Callable[[int], bool], beside: int = 0
) -> list[MethodClip]:
    """Return `clips_of`, which are expected with so many windows on both sides of each."""
    clips = clips_of(method, windows, wanted)
    followed = method.exposures(windows) if clips else None
    if followed is not None:
        around = {i for clip in clips for i in range(clip.start - beside, clip.stop + beside)}
        followed.expect(sorted(around & set(range(windows.length))))
    return clips


def _frames_of(
    method: Method, windows: WindowSequence, clip: MethodClip, time: float = 0.0
) -> Iterator[tuple[int, Frames]]:
    """Yield the windows that a clip keeps, each with its frame at an instant."""
    frames = method.at(windows, clip, time) if time else method(windows, clip)
    if not np.isfinite(frames).all():
        raise MethodError(
            f"{windows.seq}: expected light from {method.name}, found values that are no "
            f"numbers in windows {clip.keep_start} to {clip.keep_stop - 1}; look at the "
            "recording with `spikedeblur check`, or use another method"
        )
    yield from zip(range(clip.keep_start, clip.keep_stop), frames, strict=True)


def clips_of(
    method: Method, windows: WindowSequence, wanted: Callable[[int], bool] = lambda window: True
) -> list[MethodClip]:
    """Return the clips by which a method restores the wanted windows."""
    return [
        clip
        for clip in plan_clips(windows.length, method.clip_len)
        if any(map(wanted, range(clip.keep_start, clip.keep_stop)))
    ]


def plan_clips(windows: int, clip_len: int) -> list[MethodClip]:
    """Return overlapping clips that keep each of the windows once.

    Clips advance by half their length, rounded up; the last one ends with the sequence. Each
    window is kept from the clip in which it lies nearest to the middle, where it has neighbours on
    both sides; from the earlier clip if two are equally near. A sequence shorter than a clip is
    one clip.
    """
    if windows <= clip_len:
        return [MethodClip(0, windows, 0, windows)]
    last = windows - clip_len
    starts = [*range(0, last, (clip_len + 1) // 2), last]
    # The last of the windows that are at least as near to clip a's middle as to clip b's.
    borders = [(a + b + clip_len - 1) // 2 + 1 for a, b in itertools.pairwise(starts)]
    return [
        MethodClip(start, start + clip_len, keep_start, keep_stop)
        for start, keep_start, keep_stop in zip(
            starts, [0, *borders], [*borders, windows], strict=True
        )
    ]


def require_raw(windows: WindowSequence, names: str) -> None:
    """Refuse a sequence whose voxels have log1p done.

    Args:
        windows: the sequence.
        names: the methods that need raw counts, for the message.

    Raises:
        MethodError: log1p is done; names the sequence.
    """
    if not windows.windows_are_raw:
        raise MethodError(
            f"{windows.seq}: {names} need raw counts, and these voxels have log1p done; "
            "count the spikes anew with `voxelize`, or evaluate blur and model only"
        )


def gain_of(windows: WindowSequence, window: int, rate: Frames) -> np.float32:
    """Return the gain, spikes a sample at unit luminance; if not known, from the blurred frame.

    Over the exposure, spikes and blurred frame saw the same light, so the gain is the mean rate
    over the mean luminance.

    Args:
        windows: the sequence.
        window: index of the window.
        rate: its spikes a sample (h, w).
    """
    if windows.gain is not None:
        return np.float32(windows.gain)
    light = float(luminance(windows.blur(window, window + 1)).mean())
    spikes = float(rate.mean())
    return np.float32(spikes / light if spikes > 0 and light > 0 else 1.0)
