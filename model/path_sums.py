"""How light adds up along paths: on the ways of points, and in the spike pixels that they cross.

Letters in shape comments: N windows, I instants, H and W rows and columns of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant, numbers
from .paths import points_at, sampled

_POINTS = 1 << 19  # points that are put together at once


class PathSums:
    """Weighted sums over points of pictures: sum over instants of weight times picture.

    Points and weights are the same in all corrections, so they are put together once: to the four
    pixels around each point, with bilinear weights.
    """

    def __init__(self, points: Tensor, weights: Tensor) -> None:
        """Take points (N, I, H, W, 2), from -1 to 1, and weights (N, I, H, W)."""
        windows, instants, height, width = weights.shape
        # Exporters do not know embedding_bag, nor that a number has the type of its tensor.
        exported = torch.compiler.is_compiling()
        rows = height if exported else max(1, _POINTS // (windows * instants * width))
        whole = torch.int64 if exported else torch.int32
        first = torch.arange(windows, device=weights.device, dtype=whole) * (height * width)
        indices, shares = [], []
        for top in range(0, height, rows):
            column, row, weight = (
                x[:, :, top : top + rows].movedim(1, -1)  # (N, rows, W, I)
                for x in (points[..., 0], points[..., 1], weights)
            )
            column = ((column + 1) * (width / 2) - 0.5).clamp(0, width - 1)
            row = ((row + 1) * (height / 2) - 0.5).clamp(0, height - 1)
            left, above = column.floor().clamp(max=width - 2), row.floor().clamp(max=height - 2)
            at = above.to(whole) * width + left.to(whole) + first[:, None, None, None]
            indices.append(torch.stack([at, at + 1, at + width, at + (width + 1)], 3))
            below = weight * (row - above)
            above_right = (weight - below) * (column - left)
            below_right = below * (column - left)
            corners = weight - below - above_right, above_right, below - below_right, below_right
            shares.append(torch.stack(corners, 3))
        self._indices = torch.cat(indices, 1).view(-1, 4 * instants)
        del indices
        self._weights = torch.cat(shares, 1).view(-1, 4 * instants)

    def __call__(self, picture: Tensor) -> Tensor:
        """Return the sums for a picture (N, C, H, W), in its shape."""
        pixels = picture.movedim(1, -1).flatten(0, 2).contiguous()  # (N H W, C)
        if torch.compiler.is_compiling():
            sums = (pixels[self._indices] * self._weights[..., None]).sum(1)
        else:
            sums = F.embedding_bag(
                self._indices, pixels, mode="sum", per_sample_weights=self._weights
            )
        windows, channels, height, width = picture.shape
        return sums.view(windows, height, width, channels).movedim(-1, 1)


def sources_of(shift: Tensor, visible: Tensor) -> Tensor:
    """Return the way back from each pixel to the point that is seen there, at each instant.

    Where several points land on a pixel, the most visible one is seen.

    Args:
        shift: (N, I, 2, H, W), of points from the middle to each instant, in pixels.
        visible: (N, I, H, W), of the points.

    Returns:
        (N, I, 2, H, W), from a pixel to where the point is in the middle.
    """
    windows, instants, _, height, width = shift.shape
    rows = torch.arange(height, device=shift.device)[:, None].expand(height, width)
    columns = torch.arange(width, device=shift.device).expand(height, width)
    place = torch.stack([columns, rows])  # (2, H, W)
    landed = (place + shift).round()
    last = constant(numbers, width - 1, height - 1, like=landed)[:, None, None]
    outside = (landed < 0) | (landed > last)
    target = landed[:, :, 1].clamp(0, height - 1) * width + landed[:, :, 0].clamp(0, width - 1)
    key = (255 * visible).round().long() * (height * width) + rows * width + columns
    key = torch.where(outside.any(2), -1, key)
    best = torch.full_like(key.flatten(2), -1).scatter_reduce(
        2, target.long().flatten(2), key.flatten(2), "amax"
    )  # (N, I, H W)
    source = (best % (height * width)).view(windows, instants, height, width)
    back = torch.stack([source % width, source // width], 2) - place
    nothing = (best < 0).view(windows, instants, 1, height, width)
    return _once_nearer(shift, torch.where(nothing, _reversed(shift), back.to(shift)))


def _reversed(shift: Tensor) -> Tensor:
    back = -shift
    for _ in range(3):
        back = _once_nearer(shift, back)
    return back


def _once_nearer(shift: Tensor, back: Tensor) -> Tensor:
    """One step of the fixed point back(x) = -shift(x + back(x))."""
    points = points_at(back, shift.shape[-2:])
    return -sampled(shift.flatten(0, 1), points.flatten(0, 1)).view_as(shift)


def enlarged_sources(sources: Tensor, shift: Tensor) -> Tensor:
    """Return sources (N, I, 2, h, w) for shifts (N, I, 2, H, W) of about twice the size."""
    back = 2 * F.interpolate(sources.flatten(1, 2), shift.shape[-2:], mode="nearest")
    return _once_nearer(shift, back.view_as(shift))


def spline(spike_pixel: float) -> list[float]:
    """Return the kernel by which the mean light along a path blurs a point: a quadratic B-spline.

    It is three boxes in a row, each as wide as a spike pixel: the pixel itself, and two for linear
    sampling between pixels on the way.
    """
    radius = int(1.5 * spike_pixel + 0.5)
    places = (abs(i) / spike_pixel for i in range(-radius, radius + 1))
    spline = [0.75 - x * x if x < 0.5 else max(1.5 - x, 0) ** 2 / 2 for x in places]
    return [value / sum(spline) for value in spline]


def blurred_by(picture: Tensor, kernel: Sequence[float]) -> Tensor:
    """Return a picture (N, 1, H, W) blurred by a kernel, along rows and columns.

    By sums of shifted pictures, which are faster on CPUs than `conv2d` of one channel.
    """
    reach = len(kernel) // 2
    for axis in (-1, -2):
        side = picture.shape[axis]
        pads = (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach)
        padded = F.pad(picture, pads, mode="replicate")
        picture = torch.zeros_like(picture)
        for i, weight in enumerate(kernel):
            picture.add_(padded.narrow(axis, i, side), alpha=weight)
    return picture
