"""Paths of points within an exposure, and pictures sampled along them.

A path is x + sum over k of c_k (P_k(2 t) - P_k(0)), where x is the point in the middle of the
exposure, t goes from -1/2 to 1/2 and P_k are Legendre's polynomials, which are orthogonal over the
exposure.

Letters in shape comments: N windows, I instants, h and w rows and columns of spikes, H and W of
frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant, numbers

DEGREE = 4
"""Degree of a path's polynomials."""

AT_ONCE = 1 << 18
"""Numbers that are worked on together, few enough to stay in a processor's cache."""

_AS_COLOURS = 4  # most maps that torch enlarges together with other last bits than each alone

T = TypeVar("T")

helped: ContextVar[Callable[[Callable[[slice], Any], Sequence[slice]], list[Any]] | None]
helped = ContextVar("helped", default=None)
"""How this thread does a task for each strip, with the help of others; None: alone."""

Paths = Tensor
"""Coefficients (N, DEGREE, 2, H, W), columns before rows, in pixels."""


def bin_times(number: int) -> list[float]:
    """Return the middles of `number` equal parts of an exposure, from -1/2 to 1/2."""
    return [(i + 0.5) / number - 0.5 for i in range(number)]


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (N, C, h, w) of another size (H, W), bilinearly."""
    if list(maps.shape[-2:]) == list(size):
        return maps
    one_by_one = 2 * math.prod(size) > AT_ONCE and maps.shape[1] > _AS_COLOURS
    if not (one_by_one and maps.is_contiguous()):
        return F.interpolate(maps, list(size), mode="bilinear")
    return by_maps(lambda some: F.interpolate(some, list(size), mode="bilinear"), maps, size)


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


def places(size: Sequence[int], like: Tensor) -> Tensor:
    """Return where a picture's pixels are, from -1 to 1: (2, H, W), columns first."""
    rows, columns = (
        (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side * 2 - 1
        for side in size
    )
    return torch.stack([columns.expand(*size), rows[:, None].expand(*size)])


def points_at(shift: Tensor, size: Sequence[int], place: Tensor | None = None) -> Tensor:
    """Return where shifts (N, I, 2, H, W), in the pixels of a picture of this size, lead.

    Args:
        shift: how far from its pixel each point is.
        size: (h, w) of the picture.
        place: (2, H, W), the rows of `places` from which shifts start; None: all of them.

    Returns:
        (N, I, H, W, 2), columns first, from -1 to 1 inside, as `grid_sample` takes it.
    """
    start = places(shift.shape[-2:], shift) if place is None else place
    to_unit = constant(numbers, 2 / size[1], 2 / size[0], like=shift)[:, None, None]
    return torch.addcmul(start, shift, to_unit).movedim(2, -1)


def strips(maps: Tensor) -> list[slice]:
    """Cut the rows of maps (N, ..., H, W) so that a window's strips stay in a processor's cache."""
    height = maps.shape[-2]
    if torch.compiler.is_compiling():
        return [slice(0, height)]
    count = min(height, -(-maps[0].numel() // AT_ONCE))
    edges = [height * i // count for i in range(count + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def for_each(task: Callable[[slice], T], parts: Sequence[slice]) -> list[T]:
    """Return what a task gives for each strip. It is the same whoever helps; see `helped`."""
    if len(parts) == 1:
        return [task(parts[0])]
    help_with = helped.get()
    return [task(rows) for rows in parts] if help_with is None else help_with(task, parts)


def by_rows(find: Callable[..., Tensor], maps: Sequence[Tensor]) -> Tensor:
    """Find maps in strips of rows, so that what is computed in between stays in the cache.

    Args:
        find: takes the same rows of each map, and returns maps (..., H, W) of these rows.
        maps: (..., H, W) each; the first one decides how high a strip is.
    """
    parts = strips(maps[0])
    if len(parts) == 1:
        return find(*maps)
    first = find(*(x[..., parts[0], :] for x in maps))
    found = first.new_empty(*first.shape[:-2], maps[0].shape[-2], first.shape[-1])
    found[..., parts[0], :] = first

    def write(rows: slice) -> None:
        found[..., rows, :] = find(*(x[..., rows, :] for x in maps))

    for_each(write, parts[1:])
    return found


def by_maps(find: Callable[[Tensor], Tensor], maps: Tensor, size: Sequence[int]) -> Tensor:
    """Find maps (N, C, H, W) of a size (H, W), each from one of maps (N, C, h, w), a few at once.

    Args:
        find: takes some of the maps, and returns those that are found.
        maps: what they are found from.
        size: (H, W).
    """
    few = max(1, AT_ONCE // max(math.prod(size), math.prod(maps.shape[-2:])))
    number = maps.shape[1]
    if number <= few or torch.compiler.is_compiling():
        return find(maps)
    found = maps.new_empty(*maps.shape[:2], *size)

    def write(some: slice) -> None:
        found[:, some] = find(maps[:, some])

    for_each(write, [slice(i, min(i + few, number)) for i in range(0, number, few)])
    return found


def are_inside(points: Tensor) -> Tensor:
    """Return where `points_at` are inside the picture: (N, I, H, W), 1 there and 0 elsewhere."""
    x, y = points.unbind(-1)
    return torch.maximum(x.abs(), y.abs()).le_(1)


def sampled(pictures: Tensor, points: Tensor) -> Tensor:
    """Return pictures (N, C, h, w) at points (N, H, W, 2): (N, C, H, W)."""
    return F.grid_sample(pictures, points, padding_mode="border", align_corners=False)


def each_sampled(pictures: Tensor, points: Tensor) -> Tensor:
    """Return pictures (N, I, h, w), each at its own points (N, I, H, W, 2): (N, I, H, W)."""
    seen = sampled(pictures.flatten(0, 1)[:, None], points.flatten(0, 1))  # (N I, 1, H, W)
    return seen.view(points.shape[:-1])


def follow(
    light: Tensor, paths: Paths, times: Sequence[float], place: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample pictures of light (N, I, h, w), each at its own time, where paths then are.

    Args:
        light: the pictures.
        paths: (N, DEGREE, 2, H, W), in pixels of the light.
        times: one for each picture.
        place: see `points_at`.

    Returns:
        (N, I, H, W), and what `are_inside` returns.
    """
    size, shift = light.shape[-2:], shifts(paths, times)
    if place is None:
        place = places(shift.shape[-2:], shift)

    def seen(shift: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        points = points_at(shift, size, place)
        return each_sampled(light, points), are_inside(points)

    parts = strips(shift)
    if len(parts) == 1:
        return seen(shift, place)
    followed = torch.empty_like(shift[:, :, 0])
    inside = torch.empty_like(followed)

    def write(rows: slice) -> None:
        followed[..., rows, :], inside[..., rows, :] = seen(shift[..., rows, :], place[:, rows])

    for_each(write, parts)
    return followed, inside
