"""Paths of points within an exposure, and pictures sampled along them.

A path is x + sum over k of c_k (P_k(2 t) - P_k(0)), where x is the point in the middle of the
exposure, t goes from -1/2 to 1/2 and P_k are Legendre's polynomials, which are orthogonal over the
exposure.

Letters in shape comments: N windows, I instants, h and w rows and columns of spikes, H and W of
frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant, numbers

DEGREE = 4
"""Degree of a path's polynomials."""

Paths = Tensor
"""Coefficients (N, DEGREE, 2, H, W), columns before rows, in pixels."""


def bin_times(number: int) -> list[float]:
    """Return the middles of `number` equal parts of an exposure, from -1/2 to 1/2."""
    return [(i + 0.5) / number - 0.5 for i in range(number)]


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (N, C, h, w) of another size (H, W), bilinearly."""
    if list(maps.shape[-2:]) == list(size):
        return maps
    return F.interpolate(maps, list(size), mode="bilinear")


def enlarged(paths: Paths, scale: int) -> Paths:
    """Return paths (N, DEGREE, 2, scale * h, scale * w), still in pixels of h and w."""
    size = [scale * side for side in paths.shape[-2:]]
    return resized(paths.flatten(1, 2), size).unflatten(1, (DEGREE, 2))


def basis(times: Sequence[float], like: Tensor) -> Tensor:
    """Return P_k(2 t) - P_k(0), k from 1 to DEGREE: (I, DEGREE)."""
    return constant(_legendre, *times, like=like)


def _legendre(*times: float) -> Tensor:
    x = 2 * torch.tensor([*times, 0.0], dtype=torch.float64)
    legendre = [torch.ones_like(x), x]
    for k in range(1, DEGREE):
        legendre.append(((2 * k + 1) * x * legendre[k] - k * legendre[k - 1]) / (k + 1))
    values = torch.stack(legendre[1:], 1)  # (I + 1, DEGREE)
    return values[:-1] - values[-1]


def shifts(paths: Paths, times: Sequence[float]) -> Tensor:
    """Return how far paths are from where they are in the middle: (N, I, 2, H, W) in pixels."""
    return torch.einsum("ik,nkahw->niahw", basis(times, paths), paths)


def speed(paths: Paths) -> Tensor:
    """Return the root mean square speed over the exposure: (N, 1, H, W), pixels an exposure."""
    instants = 13
    moved = basis([i / (instants - 1) - 0.5 for i in range(instants)], paths).diff(dim=0)
    squares = (instants - 1) * moved.T @ moved  # (DEGREE, DEGREE)
    return torch.einsum("nkahw,kj,njahw->nhw", paths, squares, paths)[:, None].clamp(min=0).sqrt()


def points_at(shift: Tensor, size: Sequence[int]) -> Tensor:
    """Return where shifts (N, I, 2, H, W), in the pixels of a picture of this size, lead.

    Returns:
        (N, I, H, W, 2), columns first, from -1 to 1 inside, as `grid_sample` takes it.
    """
    columns, rows = (
        (torch.arange(side, device=shift.device, dtype=shift.dtype) + 0.5) / side * 2 - 1
        for side in shift.shape[:-3:-1]
    )
    start = torch.stack([columns.expand(shift.shape[-2:]), rows[:, None].expand(shift.shape[-2:])])
    to_unit = constant(numbers, 2 / size[1], 2 / size[0], like=shift)[:, None, None]
    return torch.addcmul(start, shift, to_unit).movedim(2, -1)


def are_inside(points: Tensor) -> Tensor:
    """Return where `points_at` are inside the picture: (N, I, H, W), 1 there and 0 elsewhere."""
    x, y = points.unbind(-1)
    return ((x.abs() <= 1) & (y.abs() <= 1)).to(points)


def sampled(pictures: Tensor, points: Tensor) -> Tensor:
    """Return pictures (N, C, h, w) at points (N, H, W, 2): (N, C, H, W)."""
    return F.grid_sample(pictures, points, padding_mode="border", align_corners=False)


def each_sampled(pictures: Tensor, points: Tensor) -> Tensor:
    """Return pictures (N, I, h, w), each at its own points (N, I, H, W, 2): (N, I, H, W)."""
    seen = sampled(pictures.flatten(0, 1)[:, None], points.flatten(0, 1))  # (N I, 1, H, W)
    return seen.view(points.shape[:-1])


def follow(light: Tensor, paths: Paths, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Sample pictures of light (N, I, h, w), each at its own time, where paths then are.

    Returns:
        (N, I, H, W), and what `are_inside` returns.
    """
    points = points_at(shifts(paths, times), light.shape[-2:])
    return each_sampled(light, points), are_inside(points)
