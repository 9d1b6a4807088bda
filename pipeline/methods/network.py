"""Trained networks as a method: whole frames, or tiles blended into whole frames.

The letters in shapes are those of `contract`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ...configs.schema import Config, NormConfig
from ...model import Conditions, RawWindows, VRTWithSpike, measure_conditions, network_inputs
from ..host.device_memory import explained_shortage
from ..sequences.contract import WindowSequence
from ..sequences.light import is_plain_log1p, seen_by
from .contract import Frames, MethodClip, MethodError
from .tiling import Blender, Tile, choose_tile, plan_tiles


class ModelMethod:
    """A trained network: whole frames, or overlapping tiles blended into whole frames."""

    name = "model"

    def __init__(
        self,
        model: VRTWithSpike,
        config: Config,
        *,
        tile: int | None = None,
        flips: bool = False,
        device: str | None = None,
    ) -> None:
        """Prepare a network for restoring.

        Args:
            model: the network.
            config: the configuration that it was trained with.
            tile: side of a tile in frame pixels; 0: whole frames; None: chosen by
                `methods.tiling.choose_tile`.
            flips: restore four mirrored copies and take their mean, in four times the time, a
                little nearer to the truth.
            device: a torch device; None: the GPU where there is one.
        """
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.config = config
        self.tile = tile
        self.flips = flips
        self.clip_len = config.DATA.CLIP_LEN
        self._model = model.to(self.device).eval()
        self._chosen: dict[tuple[tuple[int, int], int], int | None] = {}

    def tile_side(self, frame_shape: tuple[int, int], windows: int) -> int | None:
        """Return the side of the tiles that frames are cut into, in pixels; None: whole frames.

        Args:
            frame_shape: (H, W) of the frames, in pixels.
            windows: number of windows in the sequence, which bounds a clip's length.
        """
        if self.tile is not None:
            return self.tile or None
        clip = min(self.clip_len, windows)
        if (frame_shape, clip) not in self._chosen:
            self._chosen[frame_shape, clip] = choose_tile(
                self._model, self.config, frame_shape, torch.device(self.device), clip
            )
        return self._chosen[frame_shape, clip]

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return the kept windows' frames; see `Method`.

        Raises:
            MethodError: the sequence's voxels are not what the network was trained on.
            NotEnoughMemoryError: names a smaller tile.
        """
        if windows.bins != self.config.DATA.K:
            raise MethodError(
                f"{windows.seq}: expected voxels of {self.config.DATA.K} bins as in training, "
                f"found {windows.bins}; voxelize with --bins {self.config.DATA.K}"
            )
        tiles = plan_tiles(
            windows.frame_shape,
            windows.voxel_shape,
            self.tile_side(windows.frame_shape, windows.length),
            multiple=8 * self.config.MODEL.TRUNK_SCALE,
        )
        kept = slice(clip.keep_start - clip.start, clip.keep_stop - clip.start)
        reader = InputReader(windows, self.config.DATA.NORM, self.device)
        height, width = (span.stop - span.start for span in tiles[0].box)
        smaller = max(min(height, width) // 2 // 64 * 64, 64)
        advice = f"give --tile {smaller}, which takes a quarter or less"
        with torch.inference_mode(), explained_shortage(f"{windows.seq}: {height}x{width}", advice):
            if len(tiles) == 1:
                return self._restored(*reader.clip(clip.start, clip.stop))[kept]
            conditions = reader.conditions(clip.start, clip.stop)
            followed = self._followed(reader, clip, conditions)
            blender = Blender(clip.keep_stop - clip.keep_start, windows.frame_shape)
            for tile in tiles:
                inputs = reader.part(clip.start, clip.stop, conditions, tile)
                if followed is not None:
                    inputs = (*inputs, followed[:, :, *tile.box])
                blender.add(tile, self._restored(*inputs)[kept])
            return blender.result()

    def _restored(self, *inputs: Tensor) -> Frames:
        """Return a clip, or one tile of it, as (T, H, W, 3) float32."""
        return as_frames(self._mirrored(*(x[None] for x in inputs))[0])

    def _followed(
        self, reader: InputReader, clip: MethodClip, conditions: Conditions | None
    ) -> Tensor | None:
        """Return `VRTWithSpike.follow` of whole frames (T, C, H, W); None if the model lacks it."""
        if not (self.config.MODEL.USE_SPIKE and self.config.MODEL.SPIKE_MOTION):
            return None
        followed = []
        for number, window in enumerate(range(clip.start, clip.stop)):
            shared = None if conditions is None else conditions.of_window(number)
            blur, voxels = reader.part(window, window + 1, shared)
            followed.append(self._model.follow(blur[None], voxels[None])[0])
        return torch.cat(followed)

    def _mirrored(self, *inputs: Tensor) -> Tensor:
        """Return the network's output for a clip, or the mean over its mirrored copies."""
        mirrors: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if self.flips else [()]
        flipped = [self._model(*(x.flip(m) for x in inputs)).flip(m) for m in mirrors]
        return torch.stack(flipped).mean(0)


class InputReader:
    """Reads windows of a sequence as the network is given them: whole frames, or tiles of them."""

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
        [self._windows] = seen_by(norm, [windows])
        self._norm = norm
        self._device = device

    def clip(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return whole frames (T, 3, H, W) and voxels (T, K, h, w) of windows [start, stop)."""
        read = self.read(start, stop)  # once: light takes long
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
        samples = torch.from_numpy(np.array(self._windows.samples[start:stop]))
        return RawWindows(blur.permute(0, 3, 1, 2), voxels, samples)


def lag_in_bins(windows: WindowSequence, start: int, stop: int) -> float:
    """Return by how many bins the spikes of windows [start, stop) come late, by their counts.

    Less than 0: early. 0: the blurred frames show no lag, or log1p of the counts is taken.
    """
    conditions = InputReader(windows, NormConfig(CORRECT_LAG=True)).conditions(start, stop)
    return 0.0 if conditions is None or conditions.late is None else conditions.late.item()


def as_frames(restored: Tensor) -> Frames:
    """(T, 3, H, W) -> (T, H, W, 3), in main memory."""
    frames: Frames = restored.permute(0, 2, 3, 1).float().cpu().numpy()
    return frames
