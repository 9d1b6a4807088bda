"""Gains from a moving scene: what one point of it shows on the pixels that it passes.

A pixel's rate is its gain times the light there. Where the scene moves, the same light falls on one
pixel after another, so along the path of a point the logarithm of the rate changes by the gains
alone (registration-based correction: Hardie et al., Applied Optics 39(8), 2000; Ratliff et al.,
JOSA A 19(9), 2002). Where nothing moves nothing is told, and the scene isn't taken for gains, as it
is by methods that assume that all pixels see the same light on the mean (Harris and Chiang, IEEE
Trans. Image Processing 8(8), 1999) or that a scene has no detail (Scribner et al., SPIE 1541,
1991).

Paths are those of `model.spike_motion`. The logarithms of the gains are least squares over all
points and instants, each point's own light left out, with gains that spread as `PRIOR` says.

Letters in shape comments: N windows, K bins, G groups of bins, h and w a region's rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...model.paths import are_inside, bin_times, each_sampled, points_at, shifts, speed
from ...model.spike_motion import motion, visibility, weights_at

BINS, GROUPS = 16, 8
"""Bins of a window in which motion is seen, and groups of them in which light is compared."""
BRIGHT = 0.3
"""Mean luminance to which light is scaled, as `model.spike_motion` expects it."""
PRIOR = 0.1
"""Spread of gains before a recording is seen, as a share of their mean."""

_ROUNDS = 15
"""Steps of conjugate gradients; more change gains by less than their error."""
_PROBES = 4
"""Random vectors by which the information of each pixel is estimated (Hutchinson)."""
_ALIKE = 4.0
"""Errors of the light that go together, in numbers of pixels and instants."""
_ROUGH = 0.03
"""Error of the light along a path, as a share of it, however many spikes tell it."""
_UNEVEN = 0.3
"""Error of a number of spikes."""
_MOSTLY = 0.9
"""Share of good pixels in a point's light, from which on it is used."""
_FAINT = 1e-4

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """The light of a window along the paths of its points."""

    points: Tensor
    """(G, h, w, 2), where each point is, as `grid_sample` takes it."""
    light: Tensor
    """(G, h, w), on the pixels there."""
    weights: Tensor
    """(G, h, w), how much each is worth."""


@dataclass(frozen=True, slots=True)
class Told:
    """What windows tell of the logarithms of the gains; arrays are (h, w) float32."""

    gains: Plane
    """Logarithms of the gains, of mean 0 by the prior."""
    told: Plane
    """Information on each, in that of the prior."""


def follow_points(light: Plane, good: npt.NDArray[np.bool_], spikes: float) -> Seen:
    """Return the light of a window along the paths of its points.

    Args:
        light: (K, h, w), of `BRIGHT` on the mean; bad pixels are filled.
        good: (h, w), those whose gains are asked for.
        spikes: number of spikes of a group at luminance 1.
    """
    shown = torch.from_numpy(light)[None]
    paths, _ = motion(shown)
    times = bin_times(GROUPS)
    visible = weights_at(visibility(shown, paths)[0], times)[0]  # (G, h, w)
    grouped = shown.unflatten(1, (GROUPS, -1)).mean(2)[0]
    points = points_at(shifts(paths, times), light.shape[-2:])[0]
    followed = each_sampled(grouped[None], points[None])[0]
    sure = _at(torch.from_numpy(good.astype(np.float32)), points) > _MOSTLY
    error = _UNEVEN / (followed * spikes).clamp(min=_UNEVEN)
    weights = visible * are_inside(points) * sure / (1 + (error / _ROUGH).square())
    return Seen(points, followed, weights)


def travel(light: Plane) -> float:
    """Return the mean way of the points of a window (K, h, w) in it, in pixels."""
    paths, _ = motion(torch.from_numpy(light)[None])
    return float(speed(paths).mean())


def solve(windows: Sequence[Seen]) -> Told:
    """Return the gains by which the light along paths changes least."""
    told = [window.light.clamp(min=_FAINT).log() for window in windows]
    used = [
        (window.weights.sqrt() * _changes(values, window.weights))[window.weights > _MOSTLY / 3]
        for window, values in zip(windows, told, strict=True)
    ]
    noise = 1.4826 * float(torch.cat(used).abs().median()) if sum(map(len, used)) else 1.0
    prior = _ALIKE * noise**2 / PRIOR**2
    shape = windows[0].light.shape[-2:]

    def information(gains: Tensor) -> Tensor:
        total = torch.zeros(shape)
        for window in windows:
            change = window.weights * _changes(_at(gains, window.points), window.weights)
            total += _back(change, window.points, shape)
        return total

    wanted = torch.zeros(shape)
    for window, values in zip(windows, told, strict=True):
        change = window.weights * _changes(values, window.weights)
        wanted += _back(change, window.points, shape)
    gains = _conjugate_gradients(lambda x: information(x) + prior * x, wanted)
    random = torch.Generator().manual_seed(0)
    known = torch.zeros(shape)
    for _ in range(_PROBES):
        signs = torch.randint(0, 2, shape, generator=random) * 2.0 - 1
        known += signs * information(signs) / _PROBES
    return Told(gains.numpy(), (known.clamp(min=0) / prior).numpy())


@dataclass(frozen=True, slots=True)
class Offsets:
    """How pixels answer to the light that paths show on them; arrays are (h, w) float32."""

    gains: Plane
    """Rate that grows with the light, relative to pixels around."""
    dark: Plane
    """Rate that does not, in luminance."""
    errors: Plane
    """Standard errors of `dark`."""


def offsets(windows: Sequence[Seen], recorded: Sequence[Plane]) -> Offsets:
    """Return the gain and the dark rate of each pixel, by light and shade that pass over it.

    Args:
        windows: points and light along their paths.
        recorded: (G, h, w) luminance as pixels show it, bad ones too, of each window.
    """
    number, lit, squares, seen, products, powers = torch.zeros(6, *recorded[0].shape[-2:])
    for window, rates in zip(windows, recorded, strict=True):
        weights = window.weights
        mean = (weights * window.light).sum(0) / weights.sum(0).clamp(min=1e-3)
        for i, rate in enumerate(torch.from_numpy(rates)):
            point, weight = window.points[i : i + 1], weights[i : i + 1]
            share = _back(weight, point, rate.shape)
            expected = _back(weight * mean, point, rate.shape) / share.clamp(min=1e-3)
            use = share > _MOSTLY / 3
            number += use
            lit += use * expected
            squares += use * expected.square()
            seen += use * rate
            products += use * expected * rate
            powers += use * rate.square()
    # rate = gain * expected + dark; the gain is 1 by the prior, in units of the light's error.
    error = (powers - 2 * products + squares) / number.clamp(min=1)
    for _ in range(2):
        prior = error / PRIOR**2
        determinant = ((squares + prior) * number - lit.square()).clamp(min=1e-12)
        gains = ((products + prior) * number - lit * seen) / determinant
        dark = ((squares + prior) * seen - lit * (products + prior)) / determinant
        rest = powers + gains.square() * squares + dark.square() * number
        rest = rest + 2 * (gains * dark * lit - gains * products - dark * seen)
        error = (rest / (number - 2).clamp(min=1)).clamp(min=1e-8)
    errors = (error * (squares + prior) / determinant).sqrt()
    errors = torch.where(number > 2, errors, torch.inf)
    return Offsets(gains.numpy(), dark.numpy(), errors.numpy())


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """Return x where matrix(x) is about `wanted`."""
    found, rest = torch.zeros_like(wanted), wanted.clone()
    direction, square = rest.clone(), rest.square().sum()
    for _ in range(_ROUNDS):
        if float(square) == 0:
            break
        image = matrix(direction)
        step = square / (direction * image).sum()
        found, rest = found + step * direction, rest - step * image
        square, before = rest.square().sum(), square
        direction = rest + square / before * direction
    return found


def _changes(values: Tensor, weights: Tensor) -> Tensor:
    """Return values (G, h, w) less each point's mean."""
    number = weights.sum(0, keepdim=True).clamp(min=1e-3)
    return values - (weights * values).sum(0, keepdim=True) / number


def _at(plane: Tensor, points: Tensor) -> Tensor:
    """Return a plane (h, w) at points (G, h, w, 2): (G, h, w)."""
    planes = plane[None, None].expand(len(points), 1, *plane.shape)
    return F.grid_sample(planes, points, padding_mode="border", align_corners=False)[:, 0]


def _back(values: Tensor, points: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the transpose of `_at`: values (G, h, w) brought back to pixels (h, w)."""
    plane = torch.zeros(*shape, requires_grad=True)
    (back,) = torch.autograd.grad(_at(plane, points), plane, values)
    return back
