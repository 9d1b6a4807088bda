"""Exposures from frame numbers, and frame numbers from file names.

Sharp frame i is at `i / fps`. A blurred frame that averages sharp frames c-h to c+h is exposed
during the closed window `[(c - h) / fps, (c + h) / fps]`: both end frames belong to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import SpikeDeblurError

_PLAIN = re.compile(r"[0-9]{1,9}")
_BETWEEN = re.compile(r"([0-9]{1,9})_([0-9]{3})")

INTERPOLATION = 4
"""Frames of Spk-X4K1000FPS for each recorded one: itself and three interpolated ones."""


class TimelineError(SpikeDeblurError):
    """An exposure or frame rate from which no window can be made."""


def exposure_window(centre: int, exposure_frames: int, fps: float) -> tuple[float, float]:
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
            f"expected an odd exposure, so that a frame is in its middle, found "
            f"{exposure_frames} frames; give --exposure as the number of averaged frames"
        )
    if not 0 < fps < float("inf"):
        raise TimelineError(f"expected frames a second above 0, found {fps}; correct --fps")
    half = exposure_frames // 2
    return (centre - half) / fps, (centre + half) / fps


def parse_frame_name(stem: str, interpolated: bool) -> int | None:
    """Return a frame's number from its file name without suffix; None: not a frame's name.

    In a recorded sequence `0031` is 31. In an interpolated one of Spk-X4K1000FPS, `NNNN` is
    recorded frame N, and 4 N; `NNNN_MMM` is an interpolated frame after it, and 4 N + M + 1. One
    name does not tell which it is; `names_are_interpolated` looks at all of them.
    """
    if _PLAIN.fullmatch(stem):
        return int(stem) * (INTERPOLATION if interpolated else 1)
    between = _BETWEEN.fullmatch(stem)
    if interpolated and between and int(between[2]) < INTERPOLATION - 1:
        return int(between[1]) * INTERPOLATION + int(between[2]) + 1
    return None


def names_are_interpolated(stems: Iterable[str]) -> bool:
    """Whether any of the names is one that only an interpolated sequence has."""
    return any(_BETWEEN.fullmatch(stem) for stem in stems)
