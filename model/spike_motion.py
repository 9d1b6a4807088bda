"""Motion within an exposure, seen by the spikes, and their light along it. Nothing is learnt.

A short window of spikes is sharp but holds few of them; a long one holds many but is blurred. Along
the path that each point takes, the whole exposure can be summed and stays sharp, and since the
path crosses pixels at other phases, sharper than the spike camera's own pixels.

The path is x + v t + a t^2 from where a point is in the middle of the exposure, t from -1/2 to 1/2.
v and a are found as by Lucas and Kanade (IJCAI 1981): Gauss-Newton steps that make the light along
the path constant, from coarse to fine.

Letters in shape comments: N windows, K bins, G groups of bins, h and w rows and columns of spikes,
H and W of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
"""At most, each half as fine as the one before."""
COARSEST = 8
"""Pixels on the shorter side: with fewer, what seems to move is chance."""
BENT = 3
"""Levels, the finest, on which paths may bend."""
STEPS = 2
"""Gauss-Newton steps a level."""
GROUPS = 8
"""Groups of bins in which light is compared."""
MIDDLE = 3 / 8
"""Of the exposure, that the shorter of the two windows is wide."""
PARTS = 4
"""Of the exposure, whose light along the motion is compared."""
INTEGRALS = 3
"""Maps that `along_motion` returns."""

_FAINT = 1e-3  # of squared gradients of luminance: where they are below, little is seen to move
_DAMPING = 0.02
_AT_ONCE = 8  # bins that are followed together: more are no faster, and take memory
_LARGEST_STEP = 2.0  # pixels an exposure
_LITTLE = 1e-3  # weight of what a path itself does not tell

Paths = tuple[Tensor, Tensor]
"""Velocity v and acceleration a: each (N, 2, H, W), columns first, in pixels an exposure."""


def along_motion(light: Tensor, paths: Paths, scale: int) -> Tensor:
    """Integrate light along its motion.

    Args:
        light: (N, K, h, w) float32, luminance in each bin of an exposure.
        paths: of the light, in its pixels.
        scale: How many times finer than the spikes the result is sampled.

    Returns:
        (N, INTEGRALS, scale * h, scale * w): the mean over the exposure, over its middle, and the
        standard deviation between its parts, which tells where the path is not to be trusted.
    """
    velocity, acceleration = enlarged(paths, scale)
    # What leaves the picture at once has the light of its own pixel.
    still = _LITTLE * F.interpolate(light.mean(1, keepdim=True), velocity.shape[-2:])
    little = torch.full_like(still, _LITTLE)
    number, seen, squares = little, still, still.square() / _LITTLE  # (N, 1, H, W)
    middle_number, middle = little, still
    times = bin_times(light.shape[1])
    for part in _parts(len(times)):
        part_number, part_seen = torch.zeros_like(still), torch.zeros_like(still)
        for bins in part:
            here, inside = follow(light[:, bins], (velocity, acceleration), times[bins])
            weighted = inside * here  # (N, bins, H, W)
            part_number = part_number + inside.sum(1, keepdim=True)
            part_seen = part_seen + weighted.sum(1, keepdim=True)
            short = [i for i, time in enumerate(times[bins]) if abs(time) < MIDDLE / 2]
            if short:
                among = slice(short[0], short[-1] + 1)
                middle_number = middle_number + inside[:, among].sum(1, keepdim=True)
                middle = middle + weighted[:, among].sum(1, keepdim=True)
        number, seen = number + part_number, seen + part_seen
        squares = squares + part_seen.square() / part_number.clamp(min=_LITTLE)
    mean = seen / number
    deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
    return torch.cat([mean, middle / middle_number, deviation], 1)


def _parts(bins: int) -> list[list[slice]]:
    """Cut bins into `PARTS`, and each of these into slices of at most `_AT_ONCE`."""
    bounds = [(i * bins // PARTS, (i + 1) * bins // PARTS) for i in range(PARTS)]
    return [
        [slice(start, min(start + _AT_ONCE, stop)) for start in range(first, stop, _AT_ONCE)]
        for first, stop in bounds
    ]


def motion(light: Tensor) -> Paths:
    """Find how light moves within an exposure.

    Args:
        light: (N, K, h, w) float32, luminance in each bin.

    Returns:
        Paths (N, 2, h, w), in pixels of the light's.
    """
    bins = light.shape[1]
    groups = GROUPS if bins % GROUPS == 0 else bins
    pyramid = [light.unflatten(1, (groups, bins // groups)).mean(2)]  # (N, G, h, w)
    while len(pyramid) < LEVELS and min(pyramid[-1].shape[-2:]) >= 2 * COARSEST:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    times = bin_times(groups)
    velocity = torch.zeros_like(pyramid[-1][:, :2])
    acceleration = torch.zeros_like(velocity)
    for level, seen in enumerate(reversed(pyramid)):
        if level:
            velocity, acceleration = (
                2 * F.interpolate(x, seen.shape[-2:], mode="bilinear")
                for x in (velocity, acceleration)
            )
        for _ in range(STEPS):
            followed, inside = follow(seen, (velocity, acceleration), times)
            step, bend = _gauss_newton(followed, inside, times)
            velocity = smooth(velocity + step)
            if level >= len(pyramid) - BENT:
                acceleration = smooth(acceleration + bend)
    return velocity, acceleration


def bin_times(number: int) -> list[float]:
    """Return the middles of equal parts of an exposure, from -1/2 to 1/2."""
    return [(i + 0.5) / number - 0.5 for i in range(number)]


def enlarged(paths: Paths, scale: int) -> Paths:
    """Return paths (N, 2, h, w) -> (N, 2, scale * h, scale * w); of as many pixels as before."""
    if scale == 1:
        return paths
    velocity, acceleration = (
        F.interpolate(x, scale_factor=float(scale), mode="bilinear") for x in paths
    )
    return velocity, acceleration


def points_at(paths: Paths, times: Sequence[float], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return where paths (N, 2, H, W), in the pixels of a picture of this size, are at I times.

    Returns:
        (N, I, H, W, 2), columns first, from -1 to 1 inside, as `grid_sample` takes it; and
        (N, I, H, W): 1 where the path is inside the picture, 0 elsewhere.
    """
    velocity, acceleration = (x[:, None] for x in paths)  # (N, 1, 2, H, W)
    time = velocity.new_tensor(times)[:, None, None, None]
    shift = velocity * time + acceleration * time**2  # (N, I, 2, H, W)
    at = []
    for axis, (side, pixels) in enumerate(zip(shift.shape[:-3:-1], size[::-1], strict=True)):
        start = (torch.arange(side, device=shift.device, dtype=shift.dtype) + 0.5) / side * 2 - 1
        moved = shift[:, :, axis] * (2 / pixels)
        at.append((start if axis == 0 else start[:, None]) + moved)
    inside = ((at[0].abs() <= 1) & (at[1].abs() <= 1)).to(shift)
    return torch.stack(at, -1), inside


def sampled(pictures: Tensor, points: Tensor) -> Tensor:
    """Return pictures (N, C, h, w) at points (N, H, W, 2): (N, C, H, W)."""
    return F.grid_sample(pictures, points, padding_mode="border", align_corners=False)


def follow(light: Tensor, paths: Paths, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Sample pictures of light (N, I, h, w), each at its own time, where paths then are.

    Returns:
        (N, I, H, W), and whether that is inside, see `points_at`.
    """
    points, inside = points_at(paths, times, light.shape[-2:])
    seen = sampled(light.flatten(0, 1)[:, None], points.flatten(0, 1))  # (N I, 1, H, W)
    return seen.view_as(inside), inside


def _gauss_newton(seen: Tensor, inside: Tensor, times: list[float]) -> tuple[Tensor, Tensor]:
    """Steps of velocity and acceleration (N, 2, h, w) that make followed light constant."""
    mean = _weighted_mean(seen, inside)
    slope_x, slope_y = slopes(mean)
    steps = []
    for power in (1, 2):
        basis = seen.new_tensor([time**power for time in times])[:, None, None]
        basis = inside * (basis - _weighted_mean(basis.expand_as(seen), inside))
        strength = basis.square().sum(1, keepdim=True)
        change = (basis * seen).sum(1, keepdim=True)
        xx, xy, yy, x, y = smooth(
            torch.cat(
                [
                    strength * slope_x.square(),
                    strength * slope_x * slope_y,
                    strength * slope_y.square(),
                    slope_x * change,
                    slope_y * change,
                ],
                1,
            )
        ).unbind(1)
        damping = _FAINT * strength[:, 0] + _DAMPING * (xx + yy)
        xx, yy = xx + damping, yy + damping
        determinant = (xx * yy - xy.square()).clamp(min=1e-20)
        step = torch.stack([xy * y - yy * x, xy * x - xx * y], 1) / determinant[:, None]
        steps.append(step.clamp(-_LARGEST_STEP, _LARGEST_STEP))
    return steps[0], steps[1]


def _weighted_mean(seen: Tensor, weights: Tensor) -> Tensor:
    """Mean over groups: (N, G, h, w) -> (N, 1, h, w)."""
    return (weights * seen).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1e-6)


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along columns and rows."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (
        (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2,
        (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2,
    )


def smooth(x: Tensor) -> Tensor:
    """Mean around each pixel, twice over 7 x 7."""
    for _ in range(2):
        padded = F.pad(x, (3, 3, 3, 3), mode="replicate")
        x = F.avg_pool2d(F.avg_pool2d(padded, (1, 7), 1), (7, 1), 1)
    return x
