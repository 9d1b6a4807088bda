"""Spikes' light in the frame's grid: the one place where sizes of frames and spikes meet.

Networks and `path` need light in pixels of which each covers a square of whole frame pixels. Where
the spikes' own pixels don't, their light (not their bits) is resampled to such a grid, once, after
intervals and sensor and before anything is computed of it. Both cameras are taken to see the same
field. If they don't, a registration brings the spikes' bits to the frame's field beforehand; see
`spikes.registration`. Which grid it is, `spikes.frame_grid` says.

`contract` explains the letters in shapes.
"""

from __future__ import annotations

import numpy as np

from ...errors import SpikeDeblurError
from ..spikes.frame_grid import LARGEST, contradiction, grid_shape, stretch
from ..spikes.resample import Resampling
from .contract import Box, WindowSequence, sensor_of
from .seen_through import SeenThrough


class GridError(SpikeDeblurError):
    """Frames and spikes whose shapes can't be of the same field; names the sequence."""


class GridSequence(SeenThrough):
    """A sequence whose voxels are resampled to the frame's grid, (T, K, h', w').

    The result is floating: float16 where voxels are light, else float32. Voxels that have log1p
    done have it undone for it. All else is as in the sequence itself, but for the spikes, which are
    bits and stay in their own grid.
    """

    has_spikes = False

    def __init__(self, sequence: WindowSequence, resampling: Resampling) -> None:
        super().__init__(sequence)
        self._resampling = resampling
        self.voxel_shape = resampling.shape
        self.voxel_dtype = "float16" if sequence.voxel_dtype == "float16" else "float32"

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        planes = self._sequence.voxels(start, stop, *self._resampling.around(*box))
        done = not self._sequence.windows_are_raw
        light = self._resampling.resampled(np.expm1(planes) if done else planes, *box)
        if sensor_of(self._sequence) is None:  # else below 0 where the sum over time is 0
            light.clip(0, out=light)
        return np.log1p(light) if done else light.astype(self.voxel_dtype, copy=False)


def in_frame_grid(sequence: WindowSequence) -> WindowSequence:
    """Return a sequence whose voxels are in the frame's grid: itself, if they are already.

    Raises:
        GridError: see `resampling_of`.
    """
    resampling = resampling_of(sequence)
    return sequence if resampling is None else GridSequence(sequence, resampling)


def resampling_of(sequence: WindowSequence) -> Resampling | None:
    """Return what brings planes of a sequence's spikes to the frame's grid; None: they are there.

    Raises:
        GridError: the shapes contradict each other so much that both can't be of one field.
    """
    frames, spikes = sequence.frame_shape, sequence.voxel_shape
    grid = grid_shape(frames, spikes)
    if grid == spikes:
        return None
    if not is_registered(sequence) and stretch(frames, spikes) > LARGEST:
        raise GridError(f"{sequence.seq}: {contradiction(frames, spikes)}")
    return Resampling(spikes, grid)


def is_registered(sequence: WindowSequence) -> bool:
    """Return whether a registration says where a sequence's spikes lie, whatever reads it."""
    return bool(getattr(sequence, "registered", False))
