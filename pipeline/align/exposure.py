"""Frame numbers from file names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..clocks.durations import TimelineError
from ..clocks.exposures import exposure_window

__all__ = ["TimelineError", "exposure_window", "names_are_interpolated", "parse_frame_name"]

_PLAIN = re.compile(r"[0-9]{1,9}")
_BETWEEN = re.compile(r"([0-9]{1,9})_([0-9]{3})")

INTERPOLATION = 4
"""Frames of Spk-X4K1000FPS for each recorded one: itself and three interpolated ones."""


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
