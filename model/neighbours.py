"""Neighbouring exposures, and the ways that points of the sharp frame take into them.

A point is followed to the end of its own exposure, through the spikes between both exposures, and
along the neighbour's own paths. What is wrong with such a chain is mostly that it ends beside the
point, so one offset for each pixel is then found by Gauss-Newton steps (Lucas and Kanade, IJCAI
1981) that make the neighbour's light on the way that along the point's own path.

Letters in shape comments: N windows, K bins, G groups of bins, I instants, h and w rows and columns
of spikes, H and W of frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import DARK, luminance
from .paths import (
    Paths,
    are_inside,
    bin_times,
    each_sampled,
    follow,
    places,
    points_at,
    resized,
    sampled,
    shifts,
)
from .spike_motion import alike, grouped, motion, slopes, smooth

INSTANTS = 8
"""Points of a way into a neighbour at which a frame is compared with its blurred one."""
COARSE_STEPS, FINE_STEPS = 8, 4
"""Gauss-Newton steps of the offset, at half the spikes' size and at it."""

_FAINT = 1e-3  # squared slope of luminance below which steps are small
_DAMPING = 0.02  # share of the mean squared slope that damps steps
_LARGEST_STEP = 1.0  # pixels by which a step changes the offset at most
_HARDLY = 0.05  # how surely a point is seen, up to which rows need not be read for it


class Motion(NamedTuple):
    """What `spike_motion.motion` finds in a window of spikes."""

    paths: Paths
    """(N, DEGREE, 2, h, w), in pixels of the light."""
    variance: Tensor
    """(N, DEGREE, h, w), of the coefficients by noise."""


class Step(NamedTuple):
    """A part of the way into a neighbour, from the middle of a window of spikes on."""

    paths: Paths
    """The window's."""
    time: float
    """When the part ends, as a share of the window from its middle on; less than 0: before it."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An exposure beside that of the sharp frame."""

    blur: Tensor
    """(N, 3, H, W), its blurred frame, as bright as if exposed like the sharp frame's."""
    brightest: float
    """The most that its camera shows in `blur`: light there may have been more."""
    light: Tensor
    """(N, K, h, w), its luminance in each bin, as `light_in` tells it of that frame."""
    paths: Paths
    """Those of its light."""
    steps: Sequence[Step]
    """The way from the middle of the sharp frame's exposure to the middle of this one."""


@dataclass(frozen=True, slots=True)
class Near:
    """What is known beside a single exposure, or several of the same size."""

    motion: Motion
    """Motion of the sharp frame's own exposure, found already."""
    neighbours: Iterable[Neighbour]
    """The exposures before and after it, as far as there are some; each may be found when its turn
    comes, for its light takes memory."""


class Ways(NamedTuple):
    """Ways of the sharp frame's points through a neighbouring exposure."""

    shift: Tensor
    """(N, I, 2, h, w), from the middle of the own exposure on, in pixels of the spikes."""
    seen: Tensor
    """(N, I, h, w), how surely the point is seen there, 0 to 1."""

    def reach(self) -> float:
        """Return the most rows that a point that is seen moves, up or down."""
        rows = self.shift[:, :, 1].abs() * (self.seen > _HARDLY)
        return float(rows.amax())


def light_in(blur: Tensor, voxels: Tensor) -> Tensor:
    """Return the luminance of each bin (N, K, h, w), at the spikes' size.

    Args:
        blur: (N, 3, H, W), blurred frames.
        voxels: (N, K, h, w), relative.
    """
    coarse = F.avg_pool2d(luminance(blur)[:, None], blur.shape[-1] // voxels.shape[-1])
    return coarse + voxels * (coarse + DARK)


def motion_in(light: Tensor) -> Motion:
    """Return how light (N, K, h, w) moves within a window."""
    return Motion(*motion(light))


def mean_along(light: Tensor, paths: Paths, visible: Tensor) -> Tensor:
    """Return the mean light along paths while their points are visible: (N, 1, h, w).

    Args:
        light: (N, K, h, w).
        paths: its paths.
        visible: (N, G, h, w), what `visibility` returns.
    """
    groups = visible.shape[1]
    followed, inside = follow(grouped(light, groups), paths, bin_times(groups))
    weights = inside * visible
    return (weights * followed).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1e-3)


def ways_into(neighbour: Neighbour, mean: Tensor) -> Ways:
    """Follow the points of a sharp frame through a neighbouring exposure.

    Args:
        neighbour: the exposure.
        mean: (N, 1, h, w), light along the points' own paths.
    """
    moved = torch.zeros_like(neighbour.paths[:, 0])  # (N, 2, h, w)
    size = moved.shape[-2:]
    for step in neighbour.steps:
        points = points_at(moved[:, None], size)
        moved = moved + sampled(shifts(step.paths, [step.time])[:, 0], points[:, 0])
    points = points_at(moved[:, None], size)
    here = sampled(neighbour.paths.flatten(1, 2), points[:, 0]).view_as(neighbour.paths)
    shift = moved[:, None] + shifts(here, bin_times(INSTANTS))
    light = at_instants(neighbour.light, INSTANTS)
    coarse = [F.avg_pool2d(x, 2, ceil_mode=True) for x in (light, shift.flatten(1, 2), mean)]
    offset = _offset(coarse[0], coarse[1].unflatten(1, (INSTANTS, 2)) / 2, coarse[2], COARSE_STEPS)
    shift = shift + 2 * resized(offset, size)[:, None]
    shift = shift + _offset(light, shift, mean, FINE_STEPS)[:, None]
    return Ways(shift, _followed(light, shift, mean)[1])


def at_instants(light: Tensor, instants: int) -> Tensor:
    """Return light (N, K, h, w) about each of the instants: (N, I, h, w)."""
    bins = light.shape[1]
    spans = [(i * bins // instants, -(-(i + 1) * bins // instants)) for i in range(instants)]
    return torch.stack([light[:, start:stop].mean(1) for start, stop in spans], 1)


def _offset(light: Tensor, shift: Tensor, mean: Tensor, steps: int) -> Tensor:
    """Return what to add to ways so that the light on them is the mean: (N, 2, h, w)."""
    slope_x, slope_y = slopes(mean)
    place = places(mean.shape[-2:], mean)
    offset = torch.zeros_like(shift[:, 0])
    for _ in range(steps):
        departs, weights = _followed(light, shift + offset[:, None], mean, place)
        number = weights.sum(1, keepdim=True)
        error = (weights * departs).sum(1, keepdim=True)
        products = (
            number * slope_x.square(),
            number * slope_x * slope_y,
            number * slope_y.square(),
            slope_x * error,
            slope_y * error,
        )
        xx, xy, yy, x, y = smooth(torch.cat(products, 1), 2).split(1, 1)
        damping = _FAINT * light.shape[1] + _DAMPING * (xx + yy)
        xx, yy = xx + damping, yy + damping
        step = torch.cat([xy * y - yy * x, xy * x - xx * y], 1) / (xx * yy - xy.square())
        offset = offset + smooth(step.clamp(-_LARGEST_STEP, _LARGEST_STEP), 2)
    return offset


def _followed(
    light: Tensor, shift: Tensor, mean: Tensor, place: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return by how much light on ways departs from the mean, and weights: both (N, I, h, w)."""
    points = points_at(shift, light.shape[-2:], place)
    departs = each_sampled(light, points) - mean
    return departs, are_inside(points) * alike(departs, mean)
