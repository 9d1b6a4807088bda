"""Exposures from frame numbers.

Sharp frame i is at `i / fps`. A blurred frame that averages sharp frames c-h to c+h is exposed
during the closed window `[(c - h) / fps, (c + h) / fps]`: both end frames belong to it.
"""

from __future__ import annotations

from ...errors import SpikeDeblurError
from ..frames.listing import INTERPOLATION as INTERPOLATION
from ..frames.listing import names_are_interpolated as names_are_interpolated
from ..frames.listing import parse_frame_name as parse_frame_name


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
