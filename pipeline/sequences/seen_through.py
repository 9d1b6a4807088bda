"""A sequence seen through another: what its wrapper does not change is as it is in itself.

`contract` explains the letters in shapes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .contract import Box, FrameKind, WindowSequence


class SeenThrough(WindowSequence):
    """A wrapper of a sequence, which reads voxels in its own way; all else is the sequence's."""

    def __init__(self, sequence: WindowSequence) -> None:
        self._sequence = sequence

    def __getattr__(self, name: str) -> Any:
        if name == "_sequence":  # not there yet: a copy is being unpickled
            raise AttributeError(name)
        return getattr(self._sequence, name)

    @property
    def instants(self) -> tuple[float, ...]:  # type: ignore[override]
        """When the sharp frames of `sharp_at` are; see `WindowSequence`."""
        return self._sequence.instants

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        read = self._sequence.blur if kind == "blur" else self._sequence.sharp
        return read(start, stop, *box)

    def _read_instant(self, instant: int, start: int, stop: int, box: Box) -> np.ndarray:
        return self._sequence.sharp_at(instant, start, stop, *box)

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        return self._sequence.spikes_beside(window, beside, *box)
