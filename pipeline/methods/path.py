"""The blurred frame made sharp along the paths of what moves."""

from __future__ import annotations

import torch

from ..sequences.contract import WindowSequence
from .contract import Frames, Method, MethodClip, MethodError, require_raw
from .exposures import NORM, SMALLEST, Exposures, as_frames
from .shared import SharedExposures


class PathMethod(Method):
    """The blurred frame made sharp along the paths of what moves; see `model.motion_deblur`.

    The blurred frames of the exposures before and after it help, where they are near enough.
    """

    name = "path"
    clip_len = 1

    def __init__(self, *, device: str | None = None) -> None:
        """Prepare for restoring on a torch device; None: the GPU where there is one."""
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.shared: SharedExposures = SharedExposures()

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return the frames (T, H, W, 3) whose means along the paths are the blurred frames."""
        height, width = windows.frame_shape
        if min(height, width) < SMALLEST:
            raise MethodError(
                f"{windows.seq}: path needs frames of at least {SMALLEST}x{SMALLEST} pixels, found "
                f"{height}x{width}; use sdm"
            )
        exposures = self.exposures(windows)
        found = [exposures.sharp(window)[0] for window in range(clip.keep_start, clip.keep_stop)]
        return as_frames(torch.cat(found))

    def exposures(self, windows: WindowSequence) -> Exposures:
        """Return how the sequence's exposures move.

        Raises:
            MethodError: the sequence's voxels are not raw.
        """
        require_raw(windows, self.name)
        return self.shared.of(windows, NORM, device=self.device)

    def measured_gains(self, windows: WindowSequence) -> list[float]:
        """Return the gain of each exposure that was read."""
        return list(self.exposures(windows).gains.values())
