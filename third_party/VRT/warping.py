"""Moving a neighbour to a frame: by flow alone, and by flow and deformable convolution.

A flow (B, 2, H, W) holds (x, y) in pixels; warping reads the source at pixel position + flow.
Positions are kept in the flow's type (float32 under autocast): bf16 would be off by pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deformable import deform_conv
from .recompute import Recomputable, run

OFFSET_BYTES = (16 << 20, 1 << 30)
"""Most bytes of deformable offsets and weights at once, on a CPU and on a GPU; a few times as
many are held."""

# (neighbours, targets, flows), each (pairs, channels, H, W) -> aligned neighbours
Align = Callable[[Tensor, Tensor, Tensor], Tensor]


def with_both_neighbours(
    x: Tensor, backward: Tensor, forward: Tensor, align: Align, width: int
) -> Tensor:
    """Set beside each frame its two neighbours, aligned to it.

    Args:
        x: (B, D, C, H, W).
        backward, forward: Flows (B, D - 1, 2, H, W) that bring a frame to the one before it and
            to the one after it.
        align: Takes all pairs of both directions as one batch; returns (pairs, C', H, W).
        width: C'.

    Returns:
        (B, D, C + 2 C', H, W): the frame, its next and its previous neighbour; zeros for a
        neighbour that is not there.
    """
    batch, frames, _, *size = x.shape
    nothing = x.new_zeros(batch, 1, width, *size)
    if frames == 1:
        return torch.cat([x, nothing, nothing], 2)
    earlier, later = x[:, :-1], x[:, 1:]
    neighbours = torch.stack([later, earlier]).flatten(0, 2)  # (2 * B * (D - 1), C, H, W)
    targets = torch.stack([earlier, later]).flatten(0, 2)
    flows = torch.stack([backward, forward]).flatten(0, 2)
    aligned = align(neighbours, targets, flows)
    aligned = aligned.unflatten(0, (2, batch, -1))  # (2, B, D - 1, C', H, W)
    following = torch.cat([aligned[0], nothing], 1)  # (B, D, C', H, W)
    previous = torch.cat([nothing, aligned[1]], 1)
    return torch.cat([x, following, previous], 2)


class DeformableAlignment(Recomputable):
    """Align a neighbour's features by modulated deformable convolution around the flow.

    Args:
        dim: Channels C.
        groups: Offset groups; they divide C.
        reach: Largest offset from the flow, in pixels.
    """

    def __init__(self, dim: int, groups: int, reach: float) -> None:
        super().__init__()
        self.groups = groups
        self.reach = reach
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.uniform_(self.weight, -1 / math.sqrt(9 * dim), 1 / math.sqrt(9 * dim))
        last = nn.Conv2d(dim, 27 * groups, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.conv_offset = nn.Sequential(
            nn.Conv2d(2 * dim + 2, dim, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.LeakyReLU(0.1),
            last,
        )

    def forward(self, neighbour: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        """(B, C, H, W) twice and flow (B, 2, H, W) -> (B, C, H, W)."""
        # Offsets are 27 G channels, so pairs go through a few at a time.
        height, width = flow.shape[-2:]
        offset_bytes = 27 * self.groups * height * width * flow.element_size()
        pairs = max(1, OFFSET_BYTES[flow.device.type == "cuda"] // offset_bytes)
        parts = zip(neighbour.split(pairs), target.split(pairs), flow.split(pairs), strict=True)
        aligned = [run(self._align, self.recompute.warping, *part) for part in parts]
        return torch.cat(aligned) if len(aligned) > 1 else aligned[0]

    def _align(self, neighbour: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        warped = warp(neighbour, flow)
        inputs = torch.cat([warped, target, flow.to(target.dtype)], 1)  # (B, 2C + 2, H, W)
        raw = self.conv_offset(inputs).to(flow.dtype)
        offset, mask = raw.split([18 * self.groups, 9 * self.groups], 1)
        offset = self.reach * offset.tanh() + flow.flip(1).repeat(1, 9 * self.groups, 1, 1)
        with torch.autocast(neighbour.device.type, enabled=False):
            aligned = deform_conv(
                neighbour.to(flow.dtype),
                offset,
                mask.sigmoid(),
                self.weight.to(flow.dtype),
                self.bias.to(flow.dtype),
            )
        return aligned.to(neighbour.dtype)


def warp(x: Tensor, flow: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Read `x` (B, C, H, W) at position + flow, bilinearly: (B, C, H, W)."""
    height, width = x.shape[-2:]
    column, row = _positions(flow)  # (B, H, W) each
    grid = torch.stack(
        [2 * column / max(width - 1, 1) - 1, 2 * row / max(height - 1, 1) - 1], -1
    )  # (B, H, W, 2), -1 and 1 being the centres of the outermost pixels
    moved = F.grid_sample(
        x.to(flow.dtype), grid, mode="bilinear", padding_mode=padding_mode, align_corners=True
    )
    return moved.to(x.dtype)


def warp_nearest4(x: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Read `x` at the four whole pixels around position + flow: (B, 4C, H, W).

    Order: (floor x, floor y), (floor x, ceil y), (ceil x, floor y), (ceil x, ceil y); zeros
    outside. `target` is not read; `Align` has it.
    """
    column, row = _positions(flow)
    return torch.cat(
        [
            _read_pixels(x, near_column, near_row)
            for near_column in (column.floor(), column.ceil())
            for near_row in (row.floor(), row.ceil())
        ],
        1,
    )


def _positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return column and row (B, H, W) that each pixel reads."""
    height, width = flow.shape[-2:]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)
    return flow[:, 0] + columns, flow[:, 1] + rows[:, None]


def _read_pixels(x: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Read `x` (B, C, H, W) at whole columns and rows (B, H, W); zeros outside."""
    height, width = x.shape[-2:]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # `where` first: what lies outside, or is not a number, must not become an index.
    place = torch.where(inside, row * width + column, 0).long()  # (B, H, W)
    place = place.flatten(1)[:, None].expand(-1, x.shape[1], -1)  # (B, C, H * W)
    pixels = x.flatten(2).gather(2, place).view(x.shape)
    return pixels * inside[:, None]
