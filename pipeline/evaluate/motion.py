"""How methods do by motion, and how steady their frames are, by optical flow of the sharp frames.

Flow is dense inverse search (Kroeger, Timofte, Dai, Van Gool, "Fast Optical Flow using Dense
Inverse Search", ECCV 2016) from OpenCV, the extra `motion`. The warping error is that of Lai,
Huang, Wang, Shechtman, Yumer, Yang, "Learning Blind Video Temporal Consistency", ECCV 2018: the
mean squared difference of a frame and its successor brought to it, where both show the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..host.extras import from_extra
from .metrics import psnr_of

RGB = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]

EDGES = (0.0, 2.0, 8.0, 32.0, float("inf"))
"""Borders between the classes of motion, in pixels an exposure."""

OCCLUDED = 1.0
"""Most pixels by which flow there and back may miss; beyond it, a place is hidden in one frame."""


class MotionError(SpikeDeblurError):
    """Motion can't be measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionScore:
    """One method's figures by motion."""

    warping_error: float | None
    """Mean squared difference of consecutive frames along the sharp frames' flow, on [0, 1]; None:
    no two windows show the same. The sharp frames' error is the least that makes sense."""
    psnr: dict[str, float]
    """PSNR in dB over the pixels of each class of motion; classes without pixels are left out."""


class MotionMeter:
    """Collects figures over the windows of sequences, in order."""

    def __init__(self) -> None:
        """Fail early where OpenCV is missing.

        Raises:
            MotionError: OpenCV is missing.
        """
        with from_extra("motion", "figures by motion need OpenCV", MotionError):
            import cv2
        self._cv2: Any = cv2
        self._estimator: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: tuple[RGB, Mapping[str, RGB], float] | None = None
        self._squares: dict[str, npt.NDArray[np.float64]] = {}
        self._pixels = np.zeros(len(EDGES) - 1)
        self._warped: dict[str, list[float]] = {}

    def begin_sequence(self) -> None:
        """Forget the frame before."""
        self._last = None

    def add(self, sharp: RGB, frames: Mapping[str, RGB], middle: float, exposure: float) -> None:
        """Add a window.

        Args:
            sharp: the sharp frame (H, W, 3) uint8.
            frames: each method's frame, of the same shape.
            middle: middle of the exposure, in seconds.
            exposure: length of the exposure, in seconds.
        """
        frames = {"sharp": sharp, **frames}
        if self._last is not None:
            before, earlier, then = self._last
            forward, backward = self._flow(before, sharp), self._flow(sharp, before)
            moved = np.hypot(forward[..., 0], forward[..., 1]) * (exposure / (middle - then))
            self._add_squares(before, earlier, moved)
            seen = self._visible(forward, backward)
            if seen.any():
                for name, frame in earlier.items():
                    after = self._along(frames[name], forward)
                    difference = (after.astype(np.float32) - frame)[seen] / np.float32(255)
                    self._warped.setdefault(name, []).append(float(np.mean(difference**2)))
        self._last = sharp, frames, middle

    def scores(self) -> dict[str, MotionScore]:
        """Return each method's figures, and `sharp` with its own warping error."""
        names = [
            f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}"
            for low, high in itertools.pairwise(EDGES)
        ]
        scores = {}
        for method, squares in self._squares.items():
            errors = self._warped.get(method)
            scores[method] = MotionScore(
                warping_error=float(np.mean(errors)) if errors else None,
                psnr={
                    name: psnr_of(total / pixels)
                    for name, total, pixels in zip(names, squares, self._pixels, strict=True)
                    if pixels and method != "sharp"
                },
            )
        return scores

    def _flow(self, first: RGB, second: RGB) -> Flow:
        """(H, W, 3) uint8 twice -> (H, W, 2): where each pixel of the first is in the second."""
        grays = (self._cv2.cvtColor(f, self._cv2.COLOR_RGB2GRAY) for f in (first, second))
        return np.asarray(self._estimator.calc(*grays, None))

    def _along(self, image: npt.NDArray, flow: Flow) -> npt.NDArray:
        """Return `image` at the places that flow leads to; outside: the nearest inside."""
        cv2, at = self._cv2, _targets(flow)
        return np.asarray(cv2.remap(image, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))

    def _visible(self, forward: Flow, backward: Flow) -> npt.NDArray[np.bool_]:
        """Return (H, W): whether each pixel of the first frame is seen in the second, too."""
        height, width = forward.shape[:2]
        at_x, at_y = _targets(forward)
        inside = (at_x >= 0) & (at_x <= width - 1) & (at_y >= 0) & (at_y <= height - 1)
        missed = forward + self._along(backward, forward)
        return np.asarray(inside & (np.hypot(missed[..., 0], missed[..., 1]) < OCCLUDED))

    def _add_squares(self, sharp: RGB, frames: Mapping[str, RGB], moved: npt.NDArray) -> None:
        which = np.digitize(moved, EDGES[1:-1]).ravel()
        self._pixels += np.bincount(which, minlength=len(EDGES) - 1)
        for name, frame in frames.items():
            square = ((frame.astype(np.float32) - sharp) ** 2).mean(-1).ravel()
            sums = np.bincount(which, square, minlength=len(EDGES) - 1)
            self._squares[name] = self._squares.get(name, np.zeros(len(EDGES) - 1)) + sums


def _targets(flow: Flow) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return x and y (H, W) of the places that flow (H, W, 2) leads to, in pixels."""
    y, x = np.indices(flow.shape[:2], np.float32)
    return x + flow[..., 0], y + flow[..., 1]
