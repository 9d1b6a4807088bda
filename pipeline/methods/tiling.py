"""Tiles of a frame: how large they may be, where they lie, and how they are blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ..host.device_memory import free_memory, memory_taken
from ..sequences.contract import Span


class TilingError(SpikeDeblurError):
    """A frame can't be cut into the tiles that were asked for."""


SIDES = (256, 192, 128, 64)
"""Sides of the tiles to choose from, in pixels. All cost the same time a pixel of the frame, since
neighbours share a quarter of their side; on a CPU larger tiles would only take memory."""

WHOLE_PIXELS = 512 * 512
"""Frames up to this size go through the network whole if they fit; on a GPU, larger ones too."""

SHARE_OF_GPU, SHARE_OF_MAIN = 0.8, 0.5
"""Share of the free memory that a tile may take; other programs need some main memory, too."""

MOST_AT_ONCE = 16
"""Most tiles that go through the network together: more hardly fill a GPU better."""

_TRIED_SIDE = 128
"""Side of the tile that is tried, in pixels of the network's trunk: large enough that memory which
does not grow with the pixels hardly counts."""


def choose_tile(
    model: nn.Module,
    config: Config,
    frame_shape: tuple[int, int],
    device: torch.device,
    frames: int,
) -> int | None:
    """Return the side of a tile that fits in free memory; None: whole frames do.

    A pass over a small clip of zeros is tried, and memory is assumed to grow with the pixels.
    Frames no larger than that clip are taken whole without a trial.

    Args:
        model: a `VRTWithSpike`, in eval mode.
        config: the configuration it was trained with.
        frame_shape: (H, W) of the frames, in pixels.
        device: where the model is.
        frames: number of frames in a clip.
    """
    scale = config.MODEL.TRUNK_SCALE
    pixels, tried = math.prod(frame_shape), (_TRIED_SIDE * scale) ** 2
    if pixels <= tried:
        return None
    clip = (1, frames)

    def restore(side: int) -> None:
        rgb = torch.zeros(*clip, 3, side * scale, side * scale, device=device)
        model(rgb, torch.zeros(*clip, config.DATA.K, side, side, device=device))

    with torch.inference_mode():
        restore(64)  # takes the memory that is kept from the first pass on
        taken = memory_taken(lambda: restore(_TRIED_SIDE), device)
    share = SHARE_OF_GPU if device.type == "cuda" else SHARE_OF_MAIN
    room = int(share * free_memory(device) / max(taken, 1) * tried)  # pixels
    if pixels <= room and (device.type == "cuda" or pixels <= WHOLE_PIXELS):
        return None
    return next((side for side in SIDES if side * side <= room), SIDES[-1])


def tiles_at_once(first: Callable[[], None], device: torch.device) -> int:
    """Restore a first tile, and return how many of its size may go through the network together.

    On a CPU that is one: tiles of 256x256 gain nothing in company, and the result of smaller ones,
    which gain a tenth to a quarter, would depend on their number in the last bits.

    Args:
        first: restores a tile.
        device: where the network is.
    """
    if device.type != "cuda":
        first()
        return 1
    taken = memory_taken(first, device)
    return max(1, min(MOST_AT_ONCE, int(SHARE_OF_GPU * free_memory(device)) // max(taken, 1)))


def batches(tiles: Sequence[Tile], at_once: int) -> Iterator[list[Tile]]:
    """Yield tiles in order, of one size and at most `at_once` together."""
    for _, alike in itertools.groupby(tiles, lambda tile: [x.stop - x.start for x in tile.box]):
        several = list(alike)
        for first in range(0, len(several), at_once):
            yield several[first : first + at_once]


@dataclass(frozen=True, slots=True)
class AxisTile:
    """A tile's place along one axis."""

    span: Span
    """The place in frame pixels."""
    voxel_span: Span
    """The same place in spike pixels."""
    ramps: tuple[int, int]
    """Number of pixels shared with the tile before and the one after; 0 at the frame's border."""

    def weights(self) -> npt.NDArray[np.float32]:
        """Return (side,) float32 blending weights, above 0 everywhere."""
        side = self.span[1] - self.span[0]
        weights = np.ones(side, np.float32)
        for ramp, end in zip(self.ramps, (weights, weights[::-1]), strict=True):
            # Raised cosine: no kink where the ramp begins, so no line that an eye finds.
            rise = np.sin((np.arange(ramp) + 0.5) * (math.pi / 2 / max(ramp, 1))) ** 2
            end[:ramp] *= rise.astype(np.float32)
        return weights


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a frame and of its spikes."""

    vertical: AxisTile
    horizontal: AxisTile

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the frame."""
        return slice(*self.vertical.span), slice(*self.horizontal.span)

    def weights(self) -> npt.NDArray[np.float32]:
        """Return (tile height, tile width) float32."""
        return np.outer(self.vertical.weights(), self.horizontal.weights())


def plan_tiles(
    frame_shape: tuple[int, int],
    voxel_shape: tuple[int, int],
    tile: int | None,
    *,
    multiple: int = 1,
) -> list[Tile]:
    """Return the tiles that cover a frame, row by row.

    Args:
        frame_shape: (H, W), in pixels.
        voxel_shape: (h, w) of its spikes, in pixels.
        tile: side of a tile in frame pixels, rounded up to what fits both grids; None: one tile.
        multiple: number of which each tile's start is a multiple, so that a network that halves
            its input several times halves each tile where it would halve the whole frame.

    Raises:
        TilingError: a tile of less than 1 pixel.
    """
    if tile is not None and tile < 1:
        raise TilingError(f"expected tiles of at least 1 pixel, got {tile}; correct --tile")
    axes = [
        plan_axis(side, voxel_side, tile, multiple)
        for side, voxel_side in zip(frame_shape, voxel_shape, strict=True)
    ]
    return [Tile(vertical, horizontal) for vertical in axes[0] for horizontal in axes[1]]


def plan_axis(side: int, voxel_side: int, tile: int | None, multiple: int) -> list[AxisTile]:
    """Return the tiles along one axis; neighbours share at least a quarter of a tile."""
    common = math.gcd(side, voxel_side)
    step, voxel_step = side // common, voxel_side // common  # frame pixels, spike pixels
    grid = math.lcm(step, multiple)
    # In units of the grid from here; a tile of one could not overlap its neighbours.
    length = side if tile is None else max(2, -(-tile // grid))
    furthest = side // grid - length
    if furthest <= 0:
        return [AxisTile((0, side), (0, voxel_side), (0, 0))]
    count = 1 + -(-furthest // (length * 3 // 4))
    starts = [furthest * i // (count - 1) * grid for i in range(count)]
    # The last tile reaches the border, even where that is off the grid.
    spans = [(start, start + length * grid) for start in starts[:-1]] + [(starts[-1], side)]
    return [
        AxisTile(
            span=span,
            voxel_span=(span[0] // step * voxel_step, span[1] // step * voxel_step),
            ramps=(
                max(0, spans[i - 1][1] - span[0]) if i else 0,
                max(0, span[1] - spans[i + 1][0]) if i + 1 < len(spans) else 0,
            ),
        )
        for i, span in enumerate(spans)
    ]


class Blender:
    """Adds tiles up to whole frames; holds the weighted sums of the frames and the weights' sum."""

    def __init__(self, frames: int, frame_shape: tuple[int, int]) -> None:
        self._sums = np.zeros((frames, *frame_shape, 3), np.float32)
        self._weights = np.zeros(frame_shape, np.float32)

    def add(self, tile: Tile, values: npt.NDArray[np.float32]) -> None:
        """Add a tile's result (T, tile height, tile width, 3) float32."""
        weights = tile.weights()
        self._sums[:, *tile.box] += values * weights[..., None]
        self._weights[tile.box] += weights

    def result(self) -> npt.NDArray[np.float32]:
        """Return the frames (T, H, W, 3) float32: the weighted mean of all tiles at each pixel."""
        assert self._weights.min() > 0, "tiles leave a gap"
        self._sums /= self._weights[..., None]
        return self._sums
