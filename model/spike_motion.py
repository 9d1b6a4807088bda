"""Motion within an exposure, as the spikes show it, and their light along it. Nothing is learnt.

A short window of spikes is sharp but holds few of them; a long one holds many but is blurred.
Summed along the path that each point takes, the whole exposure stays sharp, and even sharper than
the spike camera's own pixels, because the path crosses them at other phases.

A path is x + v t + a t^2, where x is the point in the middle of the exposure and t goes from -1/2
to 1/2. v and a are found from coarse to fine by Gauss-Newton steps that make the light along the
path constant (Lucas and Kanade, IJCAI 1981).

Letters in shape comments: N windows, K bins, G groups of bins, h and w rows and columns of spikes,
H and W of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
"""Most levels of the pyramid, each half as fine as the one before."""
COARSEST = 8
"""Least pixels on a level's shorter side: with fewer, what seems to move is chance."""
BENT = 3
"""Number of the finest levels, on which paths may bend."""
STEPS = 2
"""Gauss-Newton steps on each level."""
GROUPS = 8
"""Groups of bins in which light is compared."""
MIDDLE = 3 / 8
"""Width of the window around the middle, as a share of the exposure."""
PARTS = 4
"""Number of parts of the exposure, whose light along the motion is compared."""
INTEGRALS = 3
"""Number of maps that `along_motion` returns."""

_FAINT = 1e-3  # squared gradient of luminance below which steps are small
_DAMPING = 0.02  # share of the mean squared gradient that damps steps
_AT_ONCE = 8  # bins followed together: more are no faster, and take memory
_LARGEST_STEP = 2.0  # pixels an exposure
_LITTLE = 1e-3  # weight of the pixel's own light, for paths that lead outside

Paths = tuple[Tensor, Tensor]
"""Velocity v and acceleration a: each (N, 2, H, W), columns first, in pixels an exposure."""


def along_motion(light: Tensor, paths: Paths, scale: int) -> Tensor:
    """Integrate light along its motion.

    Args:
        light: (N, K, h, w) float32, luminance in each bin of an exposure.
        paths: Paths of the light, in its pixels.
        scale: How many times finer than the spikes the result is sampled.

    Returns:
        (N, INTEGRALS, scale * h, scale * w): the mean over the exposure, the mean over its middle,
        and the standard deviation between its parts, which shows where a path is wrong.
    """
    velocity, acceleration = enlarged(paths, scale)
    # A path that leaves the picture at once has the light of its own pixel.
    still = _LITTLE * F.interpolate(light.mean(1, keepdim=True), velocity.shape[-2:])
    little = torch.full_like(still, _LITTLE)
    number, seen, squares = little, still, still.square() / _LITTLE  # (N, 1, H, W)
    middle_number, middle = little, still
    times = bin_times(light.shape[1])
    for part in _parts(len(times)):
        part_number, part_seen = torch.zeros_like(still), torch.zeros_like(still)
        for bins in part:
            followed, inside = follow(light[:, bins], (velocity, acceleration), times[bins])
            weighted = inside * followed  # (N, bins, H, W)
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
    """Cut bins into `PARTS` lists, each of slices of at most `_AT_ONCE` bins."""
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
        Paths (N, 2, h, w), in pixels of the light.
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
    """Return the middles of `number` equal parts of an exposure, from -1/2 to 1/2."""
    return [(i + 0.5) / number - 0.5 for i in range(number)]


def enlarged(paths: Paths, scale: int) -> Paths:
    """Return paths (N, 2, h, w) at (N, 2, scale * h, scale * w), still in the pixels of before."""
    if scale == 1:
        return paths
    velocity, acceleration = (
        F.interpolate(x, scale_factor=float(scale), mode="bilinear") for x in paths
    )
    return velocity, acceleration


def points_at(paths: Paths, times: Sequence[float], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return where paths are at I times.

    Args:
        paths: (N, 2, H, W), in pixels of the picture.
        times: I times, from -1/2 to 1/2.
        size: Rows and columns of the picture.

    Returns:
        (N, I, H, W, 2), columns first, from -1 to 1 inside the picture, as `grid_sample` takes it;
        and (N, I, H, W): 1 where the path is inside, 0 elsewhere.
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
    """Sample pictures of light (N, I, h, w), each where paths are at its own time.

    Returns:
        (N, I, H, W) samples; and (N, I, H, W): 1 where the path is inside the picture, 0 elsewhere.
    """
    points, inside = points_at(paths, times, light.shape[-2:])
    seen = sampled(light.flatten(0, 1)[:, None], points.flatten(0, 1))  # (N I, 1, H, W)
    return seen.view_as(inside), inside


def _gauss_newton(seen: Tensor, inside: Tensor, times: list[float]) -> tuple[Tensor, Tensor]:
    """Return steps of velocity and acceleration (N, 2, h, w) that make followed light constant."""
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
    """Return the mean over groups: (N, G, h, w) -> (N, 1, h, w)."""
    return (weights * seen).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1e-6)


def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the central differences of maps (N, C, h, w) along x, and along y."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (
        (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2,
        (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2,
    )


def smooth(x: Tensor) -> Tensor:
    """Return maps (N, C, h, w) smoothed by two means over 7 x 7 pixels."""
    for _ in range(2):
        padded = F.pad(x, (3, 3, 3, 3), mode="replicate")
        x = F.avg_pool2d(F.avg_pool2d(padded, (1, 7), 1), (7, 1), 1)
    return x
