"""The blurred frame made sharp along the paths of what moves."""

from __future__ import annotations

import torch.nn.functional as F

from ...configs.schema import NormConfig
from ...model.motion_deblur import sharp_along_motion
from ..sequences.contract import WindowSequence
from .contract import Frames, MethodClip, MethodError, require_raw
from .network import InputReader, as_frames

SMALLEST = 8
"""Fewest rows and columns of a frame, in pixels: in fewer, nothing is seen to move."""


class PathMethod:
    """The blurred frame made sharp along the paths of what moves; see `model.motion_deblur`."""

    name = "path"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return the frame (1, H, W, 3) whose mean along the paths is the blurred frame."""
        require_raw(windows, self.name)
        norm = NormConfig(MODE="relative", CORRECT_LAG=True)
        blur, voxels = InputReader(windows, norm).clip(clip.start, clip.start + 1)
        height, width = windows.frame_shape
        if min(height, width) < SMALLEST:
            raise MethodError(
                f"{windows.seq}: path needs frames of at least {SMALLEST}x{SMALLEST} pixels, found "
                f"{height}x{width}; use sdm"
            )
        times = max(1, round(height / voxels.shape[-2]))
        scale = times if height % times == 0 and width % times == 0 else 1
        size = (height // scale, width // scale)
        if tuple(voxels.shape[-2:]) != size:
            voxels = F.interpolate(voxels, size, mode="bilinear")
        return as_frames(sharp_along_motion(blur, voxels)[0])  # (1, H, W, 3)
