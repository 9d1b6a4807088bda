"""Windows of a sequence as networks and `path` are given them.

The letters in shapes are those of `contract`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ...configs.schema import NormConfig
from ...model import Conditions, RawWindows, measure_conditions, network_inputs
from ..sequences.contract import WindowSequence, sensor_of
from ..sequences.kept import KeptSequence
from ..sequences.light import is_plain_log1p, seen_by
from .contract import MethodError
from .tiling import Tile


class InputReader:
    """Reads windows of a sequence as the network is given them: whole frames, or tiles of them.

    Each window is read once, and its light found once, as long as windows are asked for in order.
    """

    def __init__(self, windows: WindowSequence, norm: NormConfig, device: str = "cpu") -> None:
        """Prepare for reading.

        Raises:
            MethodError: log1p of the voxels is taken already, and `norm` asks for something else.
        """
        if not windows.windows_are_raw and not is_plain_log1p(norm):
            raise MethodError(
                f"{windows.seq}: these voxels have log1p done, and the model was trained on "
                f"counts normalised by {norm.MODE}; count the spikes anew with `voxelize`"
            )
        self._windows = KeptSequence(*seen_by(norm, [windows]))
        self._norm = norm
        self._device = device

    def clip(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return whole frames (T, 3, H, W) and voxels (T, K, h, w) of windows [start, stop)."""
        read = self.read(start, stop)
        return network_inputs(read, self.measured(start, stop, [read]), self._norm)

    def conditions(self, start: int, stop: int) -> Conditions | None:
        """Measure windows [start, stop) on whole frames, which are read one by one.

        Returns:
            What `part` takes; None where log1p is taken already.
        """
        return self.measured(start, stop, (self.read(i, i + 1) for i in range(start, stop)))

    def part(
        self, start: int, stop: int, conditions: Conditions | None, tile: Tile | None = None
    ) -> tuple[Tensor, ...]:
        """Return frames and voxels as `clip` does, by conditions known already; or a tile."""
        return network_inputs(self.read(start, stop, tile), conditions, self._norm)

    def measured(self, start: int, stop: int, parts: Iterable[RawWindows]) -> Conditions | None:
        """Measure windows [start, stop) as `conditions` does, on parts that `read` returned."""
        if not self._windows.windows_are_raw:
            return None
        known = self._windows.gain
        gain = torch.full((stop - start,), math.nan if known is None else known)
        return measure_conditions(parts, gain, self._norm)

    def read(self, start: int, stop: int, tile: Tile | None = None) -> RawWindows:
        """Return windows [start, stop) as the sequence has them, or a tile of them."""
        spans = () if tile is None else (tile.vertical.span, tile.horizontal.span)
        voxel_spans = () if tile is None else (tile.vertical.voxel_span, tile.horizontal.voxel_span)
        blur, voxels = (
            torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
            for array in (
                self._windows.blur(start, stop, *spans),
                self._windows.voxels(start, stop, *voxel_spans),
            )
        )
        if sensor_of(self._windows) is not None and self._norm.MODE == "log1p":
            voxels = voxels.clamp(min=0)  # see `PixelCorrection.corrected`
        samples = torch.from_numpy(np.array(self._windows.samples[start:stop]))
        return RawWindows(blur.permute(0, 3, 1, 2), voxels, samples)
