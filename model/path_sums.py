"""How light adds up along paths: on the ways of points, and in the spike pixels that they cross.

Letters in shape comments: N windows, I instants, H and W rows and columns of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .paths import by_rows, for_each, places, points_at, sampled, strips

_PLACES = 1 << 23  # most pixels of which a number fits into 31 bits beside 8 bits of visibility


class PathSums:
    """Weighted sums over points of pictures: sum over instants of weight times picture."""

    def __init__(self, shift: Tensor, parts: Sequence[slice]) -> None:
        """Make room for the points of shifts (N, I, 2, H, W), which come in strips of rows.

        Strips lie side by side: in hundreds of pieces they would leave as many holes.
        """
        self._parts = parts
        if len(parts) > 1:
            self._points = torch.empty_like(shift).movedim(2, -1)
            self._weights = torch.empty_like(shift[:, :, 0])

    def put(self, rows: slice, points: Tensor, weights: Tensor) -> None:
        """Take points (N, I, h, W, 2), from -1 to 1, and weights (N, I, h, W) of a strip."""
        if len(self._parts) == 1:
            self._points, self._weights = points, weights
        else:
            self._points[:, :, rows], self._weights[:, :, rows] = points, weights

    def __call__(self, picture: Tensor) -> Tensor:
        """Return the sums for a picture (N, C, H, W), in its shape."""
        if torch.compiler.is_compiling():
            return _sums(picture, self._points, self._weights)
        sums = torch.empty_like(picture)

        def write(rows: slice) -> None:
            for window, one in enumerate(picture.split(1)):
                at = slice(window, window + 1), slice(None), rows
                sums[at] = _sums(one, self._points[at], self._weights[at])

        for_each(write, self._parts)
        return sums


def _sums(picture: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    windows, instants = weights.shape[:2]
    many = picture[:, None].expand(-1, instants, -1, -1, -1).flatten(0, 1)  # (N I, C, H, W)
    seen = sampled(many, points.flatten(0, 1)).unflatten(0, (windows, instants))
    return seen.mul_(weights[:, :, None]).sum(1)


def sources_of(shift: Tensor, visible: Tensor) -> Tensor:
    """Return the way back from each pixel to the point that is seen there, at each instant.

    Where several points land on a pixel, the most visible one is seen.

    Args:
        shift: (N, I, 2, H, W), of points from the middle to each instant, in pixels.
        visible: (N, I, H, W), of the points.

    Returns:
        (N, I, 2, H, W), from a pixel to where the point is in the middle.
    """
    instants, _, height, width = shift.shape[1:]
    rows = torch.arange(height, device=shift.device)[:, None].expand(height, width)
    columns = torch.arange(width, device=shift.device).expand(height, width)
    # Visibility and place in one number: the larger one is of the more visible point.
    row = 1 << (width - 1).bit_length()
    pixels = row << (height - 1).bit_length()
    whole = torch.int32 if pixels <= _PLACES else torch.int64
    place = torch.stack([columns, rows]).to(shift)  # (2, H, W)
    best = visible.new_full((len(shift), instants, height * width + 1), -1, dtype=whole)
    for strip in strips(shift):
        x, y = (place[:, strip] + shift[..., strip, :]).round_().unbind(2)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        target = torch.where(inside, y * width + x, height * width)  # the last one is for outside
        seen = (255 * visible[:, :, strip]).round().to(whole)
        key = seen * pixels + (place[1, strip] * row + place[0, strip]).to(whole)
        best = best.scatter_reduce_(2, target.long().flatten(2), key.flatten(2), "amax")

    def back(best: Tensor, start: Tensor, place: Tensor, unit: Tensor) -> Tensor:
        found = (best & (pixels - 1)).to(shift)
        down = (found / row).floor()
        source = torch.stack([found - down * row, down], 2) - place
        turned = -start
        for _ in range(3):
            turned = _nearer(shift, turned, unit)
        nothing = (best < 0)[:, :, None]
        return _nearer(shift, torch.where(nothing, turned, source), unit)

    best = best[..., :-1].unflatten(2, (height, width))
    return by_rows(back, [best, shift, place, places((height, width), shift)])


def _nearer(shift: Tensor, back: Tensor, place: Tensor) -> Tensor:
    """One step of the fixed point back(x) = -shift(x + back(x)), in rows of `places`."""
    points = points_at(back, shift.shape[-2:], place)
    return sampled(shift.flatten(0, 1), points.flatten(0, 1)).neg_().view_as(back)


def enlarged_sources(sources: Tensor, shift: Tensor) -> Tensor:
    """Return sources (N, I, 2, h, w) for shifts (N, I, 2, H, W) of about twice the size."""
    height, width = shift.shape[-2:]

    def nearer(shift_of_rows: Tensor, place: Tensor, half: Tensor) -> Tensor:
        back = sources[..., half[:, 0], :].flatten(1, 2)
        back = F.interpolate(back, (len(half), width), mode="nearest")
        return _nearer(shift, 2 * back.view_as(shift_of_rows), place)

    half = torch.arange(height, device=shift.device)[:, None] // 2
    return by_rows(nearer, [shift, places((height, width), shift), half])


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
