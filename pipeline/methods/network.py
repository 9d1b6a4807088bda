"""Trained networks as a method: whole frames, or tiles blended into whole frames.

Letters in shapes as in `contract`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...configs.schema import Config, NormConfig
from ...model import VRTWithSpike, delay, normalize_counts
from ...model.lag import lag_of_planes, lag_planes
from ..host.device_memory import explained_shortage
from ..sequences.contract import Span, WindowSequence
from ..sequences.light import in_light
from ..trained.model_file import load_trained
from .contract import Frames, MethodClip, MethodError, gain_of
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
            config: what it was trained with.
            tile: side of a tile in frame pixels; 0: whole frames; None: chosen by
                `methods.tiling.choose_tile`.
            flips: restore four mirrored copies and take their mean: four times the time, and a
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

    @classmethod
    def from_run(
        cls,
        run: str | os.PathLike[str],
        *,
        tile: int | None = None,
        flips: bool = False,
        device: str | None = None,
    ) -> ModelMethod:
        """Take the best weights of a run folder, or an exported model.

        Raises:
            SpikeDeblurError: neither, or one without a whole checkpoint.
        """
        model, config = load_trained(run)
        return cls(model, config, tile=tile, flips=flips, device=device)

    def tile_side(self, frame_shape: tuple[int, int], windows: int) -> int | None:
        """Return the side of the tiles that frames are cut into; None: whole.

        Args:
            frame_shape: (H, W) of the frames, in pixels.
            windows: how many there are; a clip has no more, whatever the model was trained with.
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
        """Return the kept windows' frames."""
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
        norm = self.config.DATA.NORM
        given = GivenClip.of(windows, clip.start, clip.stop, norm, self.device)
        if len(tiles) == 1:
            return self._restored(given)[kept]
        blender = Blender(clip.keep_stop - clip.keep_start, windows.frame_shape)
        followed = self._followed(given)
        for tile in tiles:
            blender.add(tile, self._restored(given, tile, followed)[kept])
        return blender.result()

    def _restored(
        self, given: GivenClip, tile: Tile | None = None, followed: Tensor | None = None
    ) -> Frames:
        """Return a clip, or one tile of it, as (T, H, W, 3) float32."""
        height, width = given.windows.frame_shape
        if tile is not None:
            rows, columns = slice(*tile.vertical.span), slice(*tile.horizontal.span)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            followed = None if followed is None else followed[..., rows, columns]
        smaller = max(min(height, width) // 2 // 64 * 64, 64)
        advice = f"give --tile {smaller}, which takes a quarter or less"
        with (
            torch.inference_mode(),
            explained_shortage(f"{given.windows.seq}: {height}x{width}", advice),
        ):
            inputs = given.inputs(tile)
            if followed is not None:
                inputs = (*inputs, followed)
            return as_frames(self._mirrored(*(x[None] for x in inputs))[0])

    def _followed(self, given: GivenClip) -> Tensor | None:
        """Return a clip's motion (T, C, H, W), for all of its tiles; None if the model has none."""
        if not (self.config.MODEL.USE_SPIKE and self.config.MODEL.SPIKE_MOTION):
            return None
        followed = []
        with torch.inference_mode():
            for one in given.each():
                blur, voxels = one.inputs()
                followed.append(self._model.follow(blur[None], voxels[None])[0])
        return torch.cat(followed)

    def _mirrored(self, *given: Tensor) -> Tensor:
        """Return what the network makes of a clip, or the mean over its mirrored copies."""
        if not self.flips:
            restored: Tensor = self._model(*given)
            return restored
        mirrors: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)]
        flipped = [self._model(*(x.flip(m) for x in given)).flip(m) for m in mirrors]
        return torch.stack(flipped).mean(0)


@dataclass(frozen=True, slots=True)
class GivenClip:
    """A clip as a network is given it, or a part of its frames; all parts are treated alike."""

    windows: WindowSequence
    start: int
    stop: int
    norm: NormConfig
    gains: Sequence[float] | None
    """Of each window, where nobody knows them and `norm` needs them."""
    late: int
    """Bins that the spikes come late, and are moved by."""
    device: str

    @classmethod
    def of(
        cls, windows: WindowSequence, start: int, stop: int, norm: NormConfig, device: str = "cpu"
    ) -> GivenClip:
        """Find what whole frames of windows [start, stop) tell of their spikes."""
        gains = None
        if norm.MODE == "relative" and windows.gain is None and windows.windows_are_raw:
            gains = [_gain_shown(windows, window) for window in range(start, stop)]
        late = round(lag_in_bins(windows, start, stop)) if norm.CORRECT_LAG else 0
        return cls(windows, start, stop, norm, gains, late, device)

    def each(self) -> list[GivenClip]:
        """Return clips of one window."""
        gains = self.gains or ()
        return [
            replace(self, start=i, stop=i + 1, gains=gains[i - self.start :][:1] or None)
            for i in range(self.start, self.stop)
        ]

    def inputs(self, tile: Tile | None = None) -> tuple[Tensor, ...]:
        """Return frames (T, 3, H, W) and voxels (T, K, h, w), or a tile of them."""
        if tile is None:
            return self.blur(), self.voxels()
        axes = tile.vertical, tile.horizontal
        blur = self.blur(*(axis.span for axis in axes))
        return blur, self.voxels(*(axis.voxel_span for axis in axes))

    def blur(self, rows: Span | None = None, columns: Span | None = None) -> Tensor:
        """Return blurred frames (T, 3, H, W) float32 in [0, 1]."""
        frames = np.ascontiguousarray(self.windows.blur(self.start, self.stop, rows, columns))
        rgb = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)
        return rgb.to(torch.float32).div_(255)

    def voxels(self, rows: Span | None = None, columns: Span | None = None) -> Tensor:
        """Return normalised voxels (T, K, h, w) float32.

        Raises:
            MethodError: log1p is done, and the model is given something else.
        """
        windows, norm = self.windows, self.norm
        if not windows.windows_are_raw and (
            norm.MODE != "log1p" or norm.MEAN not in (None, 0.0) or norm.STD not in (None, 1.0)
        ):
            raise MethodError(
                f"{windows.seq}: these voxels have log1p done, and the model was trained on "
                f"counts normalised by {norm.MODE}; count the spikes anew with `voxelize`"
            )
        seen = in_light(windows) if norm.MODE == "relative" else windows
        # float32 holds counts exactly, and torch has few operations on uint16.
        counts = seen.voxels(self.start, self.stop, rows, columns).astype(np.float32)
        voxels = torch.from_numpy(counts).to(self.device)
        if not windows.windows_are_raw:
            return voxels
        if self.late:
            voxels = delay(voxels, torch.full((len(voxels),), -self.late, device=self.device))
        samples = torch.from_numpy(np.array(windows.samples[self.start : self.stop]))
        gain = windows.gain if self.gains is None else torch.tensor(self.gains, device=self.device)
        return normalize_counts(voxels, samples.to(self.device), gain, norm)


def lag_in_bins(windows: WindowSequence, start: int, stop: int) -> float:
    """Return by how many bins the spikes of some windows come late, as their blurred frames tell.

    0 where nothing tells it; less than 0: early.
    """
    if not windows.windows_are_raw:
        return 0.0
    planes = []
    for window in range(start, stop):  # one by one: memory does not grow with their number
        counts = torch.from_numpy(windows.voxels(window, window + 1).astype(np.float32))
        blur = windows.blur(window, window + 1).transpose(0, 3, 1, 2) / np.float32(255)
        planes.append(lag_planes(counts, torch.from_numpy(blur)))
    return lag_of_planes(torch.cat(planes, -1)).item() * windows.bins


def _gain_shown(windows: WindowSequence, window: int) -> float:
    """Return a window's gain as its whole blurred frame shows it."""
    rate = windows.voxels(window, window + 1)[0].sum(axis=0, dtype=np.uint32)
    return float(gain_of(windows, window, rate / np.float32(windows.samples[window])))


def as_frames(restored: Tensor) -> Frames:
    """(T, 3, H, W) -> (T, H, W, 3), in main memory."""
    frames: Frames = restored.permute(0, 2, 3, 1).float().cpu().numpy()
    return frames
