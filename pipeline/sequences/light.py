"""A sequence whose voxels are light, spread over the intervals between spikes, not counts.

Where the spikes themselves are at hand, their instants are used, and the samples beside an
exposure too; where only counts in bins are, those. Letters in shapes as in `contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ...configs.schema import NormConfig
from ..spikes.intervals import light_of_counts, light_of_spikes
from .contract import Span, SpikeWindows, WindowSequence, has_spikes
from .stored import checked_crop

BESIDE = 1 / 4
"""Of an exposure, that is looked at on both sides of it."""

_AT_ONCE_BYTES = 16 * 2**20
"""Of unpacked spikes; with 32 bins, finding their light takes 2.2 times as much beside them."""


class LightSequence:
    """A `WindowSequence` whose voxels are light in spikes, (T, K, h, w) float16.

    All else is as in the sequence itself. Voxels that are not raw stay as they are.
    """

    def __init__(self, sequence: WindowSequence) -> None:
        self._sequence = sequence

    def __getattr__(self, name: str) -> Any:
        if name == "_sequence":  # not there yet: a copy is being unpickled
            raise AttributeError(name)
        return getattr(self._sequence, name)

    @property
    def voxel_dtype(self) -> str:
        """float16, or float32 where not raw."""
        return "float16" if self._sequence.windows_are_raw else self._sequence.voxel_dtype

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return light (T, K, h, w); see `spikes.intervals`."""
        sequence = self._sequence
        if not sequence.windows_are_raw:
            return sequence.voxels(start, stop, rows, columns)
        y, x = checked_crop(sequence, start, stop, rows, columns, sequence.voxel_shape)
        if not has_spikes(sequence):
            counts = sequence.voxels(start, stop, y, x)
            samples = sequence.samples[start:stop]
            light = [light_of_counts(*one) for one in zip(counts, samples, strict=True)]
            return np.stack(light).astype(np.float16)
        out = np.empty((stop - start, sequence.bins, y[1] - y[0], x[1] - x[0]), np.float16)
        for window in range(start, stop):
            self._fill(window, y, x, out[window - start])
        return out

    def _fill(self, window: int, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Write the light of a box of one window to `out` (K, h, w)."""
        samples = int(self._sequence.samples[window])
        beside = int(BESIDE * samples)
        row_bytes = (samples + 2 * beside) * (columns[1] - columns[0])
        at_once = max(1, _AT_ONCE_BYTES // row_bytes)
        sequence = cast(SpikeWindows, self._sequence)
        for top in range(*rows, at_once):
            part = (top, min(top + at_once, rows[1]))
            spikes, before = sequence.spikes_beside(window, beside, part, columns)
            light = light_of_spikes(spikes, self._sequence.bins, before, samples)
            out[:, part[0] - rows[0] : part[1] - rows[0]] = light


def in_light(sequence: WindowSequence) -> WindowSequence:
    """Return a sequence with light in the place of counts."""
    return cast(WindowSequence, LightSequence(sequence))


def seen_by(norm: NormConfig, sequences: Sequence[WindowSequence]) -> list[WindowSequence]:
    """Return sequences whose voxels are what is normalised: light for `relative`, or counts."""
    return [in_light(s) for s in sequences] if norm.MODE == "relative" else list(sequences)


def is_plain_log1p(norm: NormConfig) -> bool:
    """Return whether log1p is all that is done, so that voxels with log1p done can be used."""
    return norm.MODE == "log1p" and (norm.MEAN, norm.STD) in ((None, None), (0.0, 1.0))
