"""When a blurred frame was exposed, from its number.

Frame i of a sharp video is at `i / fps`. A blurred frame that averages frames c-h to c+h is
exposed during the closed window `[(c - h) / fps, (c + h) / fps]`: both end frames belong to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...errors import SpikeDeblurError

_PLAIN = re.compile(r"[0-9]{1,9}")
_BETWEEN = re.compile(r"([0-9]{1,9})_([0-9]{3})")

INTERPOLATION = 4
"""Spk-X4K1000FPS puts three interpolated frames after each recorded one."""


class TimelineError(SpikeDeblurError):
    """An exposure or frame rate that no window can be made from."""


def exposure_window(centre: int, exposure_frames: int, fps: float) -> tuple[float, float]:
    """Return (t0, t1), in seconds, of a blur that averages frames around `centre`.

    Args:
        centre: number of the frame in the middle.
        exposure_frames: how many frames were averaged; odd, so that there is a middle.
        fps: sharp frames a second.

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
    """Return the frame's number from its file name without suffix; None if it is no frame.

    `0031` is 31 in a recorded sequence. In Spk-X4K1000FPS, where names stay those of the
    recording and interpolated frames lie between, `NNNN` is 4 N and `NNNN_MMM` is 4 N + M + 1.
    The name alone can't tell: `names_are_interpolated` looks at its neighbours.
    """
    if _PLAIN.fullmatch(stem):
        return int(stem) * (INTERPOLATION if interpolated else 1)
    between = _BETWEEN.fullmatch(stem)
    if interpolated and between and int(between[2]) < INTERPOLATION - 1:
        return int(between[1]) * INTERPOLATION + int(between[2]) + 1
    return None


def names_are_interpolated(stems: Iterable[str]) -> bool:
    """Say whether any of the names is one that only an interpolated sequence has."""
    return any(_BETWEEN.fullmatch(stem) for stem in stems)
