"""Trained networks as a method: whole frames, or tiles blended into whole frames.

The letters in shapes are those of `contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ...configs.schema import Config
from ...model import VRTWithSpike
from ..host.device_memory import explained_shortage
from ..host.reporter import counted
from ..sequences.contract import WindowSequence
from ..spikes.frame_grid import grid_shape
from .contract import Frames, Method, MethodClip, MethodError
from .exposures import SMALLEST, Exposures, as_frames
from .inputs import InputReader
from .shared import SharedExposures
from .tiling import Blender, Tile, batches, choose_tile, plan_tiles, tiles_at_once


class ModelMethod(Method):
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
        self.asked_at_instants = config.DATA.INSTANTS
        self._model = model.to(self.device).eval()
        self.shared: SharedExposures = SharedExposures()
        self._read: tuple[WindowSequence, InputReader] | None = None
        """The reader of the sequence of the last call."""
        self._chosen: dict[tuple[tuple[int, int], int], int | None] = {}

    @property
    def needs_gain(self) -> bool:
        """Whether the network sees light by a gain, rather than counts or light along a curve."""
        norm = self.config.DATA.NORM
        return norm.MODE != "log1p" and norm.CURVE is None

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
        return self.at(windows, clip, 0.0)

    def at(self, windows: WindowSequence, clip: MethodClip, time: float) -> Frames:
        """Return the kept windows' frames at an instant; see `Method`.

        Raises:
            MethodError: the sequence's voxels are not what the network was trained on.
            NotEnoughMemoryError: names a smaller tile.
        """
        if windows.bins != self.config.DATA.K:
            raise MethodError(
                f"{windows.seq}: expected voxels of {counted(self.config.DATA.K, 'bin')} as in "
                f"training, found {windows.bins}; voxelize with --bins {self.config.DATA.K}"
            )
        tiles = self._tiles(windows)
        kept = slice(clip.keep_start - clip.start, clip.keep_stop - clip.start)
        height, width = (span.stop - span.start for span in tiles[0].box)
        smaller = max(min(height, width) // 2 // 64 * 64, 64)
        advice = f"give --tile {smaller}, which takes a quarter or less"
        with torch.inference_mode(), explained_shortage(f"{windows.seq}: {height}x{width}", advice):
            followed, beyond = self._followed(windows, clip, time)
            exposures = self.exposures(windows)
            reader = exposures.reader if exposures is not None else self._reader(windows)
            blender = Blender(clip.keep_stop - clip.keep_start, windows.frame_shape)
            conditions = reader.conditions(clip.start, clip.stop)

            def restore(batch: Sequence[Tile]) -> None:
                read = (reader.part(clip.start, clip.stop, conditions, tile) for tile in batch)
                parts = ([x[:, :, *tile.box] for tile in batch] for x in followed)
                inputs = (torch.stack(list(x)) for x in (*zip(*read, strict=True), *parts))
                for tile, frames in zip(batch, self._mirrored(*inputs, time=time), strict=True):
                    blender.add(tile, as_frames(frames)[kept])
                    self.shared.heard("network", _words(windows, tiles, tile))

            at_once = tiles_at_once(partial(restore, tiles[:1]), torch.device(self.device))
            for batch in batches(tiles[1:], at_once):
                restore(batch)
            restored = blender.result()
        # The network learnt frames within white; what its base has beyond it is added.
        return restored if beyond is None else restored + as_frames(beyond)[kept]

    def passes(self, windows: WindowSequence) -> int:
        """Return in how many tiles a clip is restored."""
        return len(self._tiles(windows))

    def _tiles(self, windows: WindowSequence) -> list[Tile]:
        return plan_tiles(
            windows.frame_shape,
            grid_shape(windows.frame_shape, windows.voxel_shape),
            self.tile_side(windows.frame_shape, windows.length),
            multiple=8 * self.config.MODEL.TRUNK_SCALE,
        )

    def _reader(self, windows: WindowSequence) -> InputReader:
        """Return the reader of a sequence whose motion is not followed."""
        if self._read is None or self._read[0] is not windows:
            self._read = windows, InputReader(windows, self.config.DATA.NORM, self.device)
        return self._read[1]

    def _followed(
        self, windows: WindowSequence, clip: MethodClip, time: float
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return what `VRTWithSpike.follow` does, of whole frames (T, C, H, W) and with neighbours.

        Args:
            windows: the sequence.
            clip: windows seen together.
            time: the instant, in exposures from the middle.

        Returns:
            A list of one, of light up to white, and (T, 3, H, W), the light beyond it; None: there
            is none. No list if the network has no use for it, or frames are too small.
        """
        exposures = self.exposures(windows)
        if exposures is None:
            return [], None
        every = range(clip.start, clip.stop)
        found = [exposures.at(i, time) if time else exposures.sharp(i) for i in every]
        sharp = torch.cat([frame for frame, _ in found])
        beyond = (sharp - 1).clamp(min=0) if bool((sharp > 1).any()) else None
        seen = [self._model.seen_of(frame.clamp(max=1), maps) for frame, maps in found]
        return [torch.cat(seen)], beyond

    def exposures(self, windows: WindowSequence) -> Exposures | None:
        """Return how exposures move; None: the network does not follow it in frames so small."""
        model = self.config.MODEL
        if not (model.USE_SPIKE and model.SPIKE_MOTION) or min(windows.frame_shape) < SMALLEST:
            return None
        # At other instants, frames of the windows beside a clip are looked at too.
        norm, kept = self.config.DATA.NORM, self.clip_len + 2 * self.asked_at_instants
        return self.shared.of(windows, norm, device=self.device, kept=kept)

    def _mirrored(self, *inputs: Tensor, time: float) -> Tensor:
        """Return the network's output for clips (B, T, ...), or the mean over mirrored copies."""
        mirrors: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if self.flips else [()]
        asked = {"instants": [time] * len(inputs[0])} if time else {}
        flipped = [self._model(*(x.flip(m) for x in inputs), **asked).flip(m) for m in mirrors]
        return torch.stack(flipped).mean(0)


def _words(windows: WindowSequence, tiles: Sequence[Tile], tile: Tile) -> str:
    of_many = f", tile {tiles.index(tile) + 1} of {len(tiles)}" if len(tiles) > 1 else ""
    return f"{windows.seq}{of_many}"
