"""A sequence whose voxels are light, spread over the intervals between spikes, not counts.

Light is found from the spikes' instants, in the exposure and beside it, or from counts in bins
where the sequence has no spikes. `contract` explains the letters in shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..spikes.half import write_rounded
from ..spikes.intervals import light_of_counts
from .contract import Box, Span, WindowSequence, sensor_of
from .grid import in_frame_grid
from .seen_through import SeenThrough

if TYPE_CHECKING:
    from ...configs.schema import NormConfig

BESIDE = 1 / 4
"""Time on each side of an exposure from which spikes are used, as a share of the exposure."""

_AT_ONCE_BYTES = 16 * 2**20
"""Samples of pixels handled at once: bytes of spikes, where they are unpacked."""


class LightSequence(SeenThrough):
    """A sequence whose voxels are light in spikes, (T, K, h, w) float16.

    All else is as in the sequence itself. Voxels that are not raw stay as they are.
    """

    def __init__(self, sequence: WindowSequence) -> None:
        super().__init__(sequence)
        self.voxel_dtype = "float16" if sequence.windows_are_raw else sequence.voxel_dtype

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        """Read light of equal pixels; see `spikes.intervals`."""
        light = self._of_equal_pixels(self._recorded_light, start, stop, box)
        return light.astype(self.voxel_dtype, copy=False)

    def _recorded_light(self, start: int, stop: int, box: Box) -> np.ndarray:
        sequence: Any = self._sequence
        if sequence.windows_are_raw and sequence.has_spikes:
            return np.stack([self._light(i, *box) for i in range(start, stop)])
        if sensor_of(sequence) is None:
            voxels = sequence.voxels(start, stop, *box)
        else:
            voxels = sequence.recorded_counts(start, stop, box)
        if not sequence.windows_are_raw:
            return voxels
        samples = sequence.samples[start:stop]
        light = np.empty(voxels.shape, np.float16)
        for counts, number, out in zip(voxels, samples, light, strict=True):
            write_rounded(light_of_counts(counts, number), out)
        return light

    def _light(self, window: int, rows: Span, columns: Span) -> np.ndarray:
        """Return the light of a box of one window (K, h, w), from its spikes."""
        samples = int(self.samples[window])
        beside = int(BESIDE * samples)
        row_bytes = (samples + 2 * beside) * (columns[1] - columns[0])
        at_once = max(1, _AT_ONCE_BYTES // row_bytes)
        out = np.empty((self.bins, rows[1] - rows[0], columns[1] - columns[0]), np.float16)
        for top in range(*rows, at_once):
            part = (top, min(top + at_once, rows[1]))
            light = out[:, part[0] - rows[0] : part[1] - rows[0]]
            self._sequence.light(window, beside, part, columns, out=light)
        return out


def seen_by(norm: NormConfig, sequences: Sequence[WindowSequence]) -> list[WindowSequence]:
    """Return sequences whose voxels are what is normalised, in the frame's grid (see `grid`).

    They are light for `relative`, else counts.
    """
    light = norm.MODE == "relative"
    return [in_frame_grid(LightSequence(s) if light else s) for s in sequences]


def beside_exposure(norm: NormConfig) -> float:
    """Return the time on each side of an exposure that voxels need, as a share of it."""
    return BESIDE if norm.MODE == "relative" else 0.0


def is_plain_log1p(norm: NormConfig) -> bool:
    """Return whether log1p is all that is done, so that voxels with log1p done can be used."""
    return norm.MODE == "log1p" and (norm.MEAN, norm.STD) in ((None, None), (0.0, 1.0))
