"""Motion within an exposure, as the spikes show it, and their light along it. Nothing is learnt.

A short window of spikes is sharp but holds few of them; a long one holds many but is blurred.
Summed along the path that each point takes, the whole exposure stays sharp, and even sharper than
the spike camera's own pixels, because the path crosses them at other phases.

The coefficients of paths (`paths`) are found from coarse to fine by Gauss-Newton steps that make
the light along the path constant (Lucas and Kanade, IJCAI 1981). Where one thing moves across
another, these steps mix both motions, so each pixel then tries the paths of pixels around it and
keeps the best (Barnes et al., "PatchMatch", SIGGRAPH 2009).

Light along a path stays what it is in the middle for as long as its point is visible. Times at
which it departs from that count less.

Letters in shape comments: N windows, K bins, G groups of bins, I instants, h and w rows and columns
of spikes, H and W of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant, numbers
from .paths import (
    DEGREE,
    Paths,
    are_inside,
    basis,
    bin_times,
    by_maps,
    by_rows,
    each_sampled,
    enlarged,
    follow,
    places,
    points_at,
    resized,
    shifts,
)
from .picture_noise import middling

LEVELS = 5
"""Most levels of the pyramid, each half as fine as the one before."""
COARSEST = 8
"""Least pixels on a level's shorter side: with fewer, what seems to move is chance."""
BENT = 3
"""Number of the finest levels, on which paths may bend."""
STEPS = 3
"""Gauss-Newton steps on each level."""
GROUPS = 8
"""Groups of bins in which light is compared."""
VISIBLE_GROUPS = 16
"""Groups of bins in which points are visible or hidden."""
REACHES = (16, 8, 3)
"""Distances in spike pixels from which a pixel tries paths, in turn."""
DIM, MOST_LIT = 0.25, 4.0
"""Mean luminance to which light is brightened for finding motion, and by how much at most."""
MIDDLE = 3 / 8
"""Width of the window around the middle, as a share of the exposure."""
PARTS = 4
"""Number of parts of the exposure, whose light along the motion is compared."""
INTEGRALS = 3
"""Number of maps that `along_motion` returns."""

_FAINT = 1e-3  # squared gradient of luminance below which steps are small
_DAMPING = 0.02  # share of the mean squared gradient that damps steps
_FEW = 8  # bins followed together: more are no faster, and take memory
_LARGEST_STEP = 1.0  # pixels by which a step changes a coefficient at most
_LITTLE = 1e-3  # weight of the pixel's own light, for paths that lead outside
_ALIKE = 0.03  # difference of luminance that is noise in the dark, even if there is none
_MEDIANS = 1.0  # difference that is noise, in medians of all differences
_ALIKE_SHARE = 0.05  # difference that is noise in the light, as a share of the luminance
_KEPT = 0.95  # share of changes along paths that are noise, or less
_HIDDEN_COST = 4.0  # largest cost of an instant, however much its light departs
_CHANCE = 0.12  # variance that means around pixels leave of a single pixel's, where all is still
_BETTER = 0.05  # cost by which another pixel's path must be better to be taken


def along_motion(light: Tensor, paths: Paths, scale: int, visible: Tensor) -> Tensor:
    """Integrate light along its motion.

    Args:
        light: (N, K, h, w) float32, luminance in each bin of an exposure.
        paths: Paths (N, DEGREE, 2, h, w) of the light, in its pixels.
        scale: How many times finer than the spikes the result is sampled.
        visible: What `visibility` returns.

    Returns:
        (N, INTEGRALS, scale * h, scale * w): the mean over the exposure, the mean over its middle,
        and the standard deviation between its parts, which shows where a path is wrong.
    """
    size = [scale * side for side in light.shape[-2:]]
    # A path that leaves the picture at once has the light of its own pixel.
    still = _LITTLE * F.interpolate(light.mean(1, keepdim=True), size)
    times = bin_times(light.shape[1])

    def integrals(paths: Tensor, visible: Tensor, still: Tensor, place: Tensor) -> Tensor:
        paths = paths.unflatten(1, (DEGREE, 2))
        little = torch.full_like(still, _LITTLE)
        number, seen, squares = little, still, still.square() / _LITTLE  # (N, 1, H, W)
        middle_number, middle = little, still
        for part in _parts(len(times)):
            part_number, part_seen = torch.zeros_like(still), torch.zeros_like(still)
            for bins in part:
                followed, weights = follow(light[:, bins], paths, times[bins], place)
                weights = weights * weights_at(visible, times[bins])
                weighted = weights * followed  # (N, bins, H, W)
                part_number = part_number + weights.sum(1, keepdim=True)
                part_seen = part_seen + weighted.sum(1, keepdim=True)
                short = [i for i, time in enumerate(times[bins]) if abs(time) < MIDDLE / 2]
                if short:
                    among = slice(short[0], short[-1] + 1)
                    middle_number = middle_number + weights[:, among].sum(1, keepdim=True)
                    middle = middle + weighted[:, among].sum(1, keepdim=True)
            number, seen = number + part_number, seen + part_seen
            squares = squares + part_seen.square() / part_number.clamp(min=_LITTLE)
        mean = seen / number
        deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
        return torch.cat([mean, middle / middle_number, deviation], 1)

    larger = enlarged(paths, scale).flatten(1, 2)
    maps = [larger, resized(visible, size), still, places(size, light)]
    return by_rows(integrals, maps)


def _parts(bins: int) -> list[list[slice]]:
    """Cut bins into `PARTS` lists, each of slices of at most `_FEW` bins."""
    bounds = [(i * bins // PARTS, (i + 1) * bins // PARTS) for i in range(PARTS)]
    return [
        [slice(start, min(start + _FEW, stop)) for start in range(first, stop, _FEW)]
        for first, stop in bounds
    ]


def motion(light: Tensor) -> tuple[Paths, Tensor]:
    """Find how light moves within an exposure.

    Args:
        light: (N, K, h, w) float32, luminance in each bin.

    Returns:
        Paths (N, DEGREE, 2, h, w), in pixels of the light; and (N, DEGREE, h, w), the variance of
        their coefficients by noise, both axes together. Paths do not bend where noise explains it.
    """
    dim = DIM / light.mean((1, 2, 3), keepdim=True).clamp(min=DIM / MOST_LIT)
    finest = grouped(light * dim.clamp(min=1), GROUPS)  # (N, G, h, w)
    pyramid = [finest]
    while len(pyramid) < LEVELS and min(pyramid[-1].shape[-2:]) >= 2 * COARSEST:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    times = bin_times(finest.shape[1])
    paths = finest.new_zeros(len(light), DEGREE, 2, *pyramid[-1].shape[-2:])
    for level, seen in enumerate(reversed(pyramid)):
        if level:
            paths = 2 * resized(paths.flatten(1, 2), seen.shape[-2:]).unflatten(1, (DEGREE, 2))
        degree = DEGREE if level >= len(pyramid) - BENT else 1
        for _ in range(STEPS):
            followed, inside = follow(seen, paths, times)
            step = _gauss_newton(followed, inside, times, degree)
            changed = smooth((paths[:, :degree] + step).flatten(1, 2), 2)
            paths = torch.cat([changed.unflatten(1, (degree, 2)), paths[:, degree:]], 1)
    paths = _best_of_neighbours(finest, paths)
    followed, inside = follow(finest, paths, times)
    weights = inside * _visible(followed)
    paths = paths + _gauss_newton(followed, weights, times, DEGREE)
    variance = _chance(followed, weights, times)
    bends = less_chance(paths[:, 1:], variance[:, 1:])
    return torch.cat([paths[:, :1], bends], 1), variance


def less_chance(paths: Paths, variance: Tensor) -> Paths:
    """Return coefficients of paths, shrunk as far as noise explains them (Wiener).

    Args:
        paths: Some or all coefficients (N, k, 2, h, w).
        variance: (N, k, h, w), of the second result of `motion`, or a multiple of it.
    """
    power = smooth(paths.square().sum(2), 2).clamp(min=1e-12)
    return paths * (1 - variance / power).clamp(0, 1)[:, :, None]


def grouped(light: Tensor, groups: int) -> Tensor:
    """Return means over groups of bins: (N, K, h, w) -> (N, G, h, w); all bins if none divide."""
    bins = light.shape[1]
    groups = groups if bins % groups == 0 else bins
    return light.unflatten(1, (groups, bins // groups)).mean(2)


def about(light: Tensor, width: float, time: float = 0.0) -> Tensor:
    """Return the mean of light (N, K, h, w) about an instant of the exposure: (N, 1, h, w).

    Args:
        light: Luminance in each bin.
        width: Share of the exposure; bins in part inside count in part.
        time: The instant, in exposures from the middle; nearer to it where the light would not
            all be of the exposure.
    """
    bins = light.shape[1]
    time = max(width / 2 - 0.5, min(time, 0.5 - width / 2))
    distance = torch.arange(bins, device=light.device) + 0.5 - bins * (time + 0.5)
    weights = (width / 2 * bins + 0.5 - distance.abs()).clamp(0, 1).to(light)
    return torch.einsum("nkhw,k->nhw", light, weights / weights.sum())[:, None]


def visibility(light: Tensor, paths: Paths) -> tuple[Tensor, Tensor]:
    """Return how surely the point of a path is seen where the path goes.

    Args:
        light: (N, K, h, w) float32, luminance in each bin.
        paths: Paths (N, DEGREE, 2, h, w), in pixels of the light's.

    Returns:
        (N, G, h, w) in [0, 1], G `VISIBLE_GROUPS`, about 1 in the middle, by definition; and
        (N, 1, 1, 1), the variance of noise between neighbouring groups.
    """
    seen = grouped(light, VISIBLE_GROUPS)
    followed, inside = follow(seen, paths, bin_times(seen.shape[1]))
    return inside * _visible(followed), _noise_between(followed)


def _noise_between(followed: Tensor) -> Tensor:
    """Return the mean square by which followed light changes from group to group: (N, 1, 1, 1).

    The largest changes are left out: a point that is hidden changes once, and noise, however few
    spikes it consists of, more often. Some pixels stand for all, because to sort takes long.
    """
    if followed.shape[1] == 1:
        return followed.new_zeros(len(followed), 1, 1, 1)
    changes = followed[..., ::4, ::4].diff(dim=1).square().flatten(1).sort(-1).values
    return changes[:, : max(1, int(_KEPT * changes.shape[1]))].mean(1)[:, None, None, None]


def _visible(followed: Tensor) -> Tensor:
    """Weights (N, G, h, w) that fall where followed light departs from the middle's."""
    return alike(*_departure(followed))


def alike(departs: Tensor, light: Tensor) -> Tensor:
    """Return weights (N, G, h, w) that fall where followed light departs from what it should be.

    Args:
        departs: (N, G, h, w), by how much it departs.
        light: (N, 1, h, w), what it should be.
    """
    noise = _noise_in(departs) + _ALIKE_SHARE * light
    near = mean_around(departs.square(), 1)
    return 1 / (1 + (near / (2 * noise.square())).square())


def _noise_in(departs: Tensor) -> Tensor:
    """Return the departure of light that is taken for noise in the dark: (N, 1, 1, 1).

    At most places paths are right and nothing is hidden, so the median is noise.
    """
    some = departs[..., ::4, ::4].abs().flatten(1)
    return _ALIKE + _MEDIANS * middling(some)[:, None, None, None]


def _departure(followed: Tensor) -> tuple[Tensor, Tensor]:
    """Followed light (N, G, h, w) less the middle's, and that of the middle (N, 1, h, w)."""
    groups = followed.shape[1]
    middle = followed[:, (groups - 1) // 2 : groups // 2 + 1].mean(1, keepdim=True)
    return followed - middle, middle


def weights_at(visible: Tensor, times: Sequence[float]) -> Tensor:
    """Return weights (N, G, H, W) of groups at I times between theirs: (N, I, H, W)."""
    shares = constant(_shares, visible.shape[1], *times, like=visible)  # (I, G)
    return torch.einsum("ig,nghw->nihw", shares, visible)


def _shares(groups: int, *times: float) -> Tensor:
    place = ((numbers(*times) + 0.5) * groups - 0.5).clamp(0, groups - 1)
    return (1 - (place[:, None] - torch.arange(groups)).abs()).clamp(min=0)


def _best_of_neighbours(light: Tensor, paths: Paths) -> Paths:
    """Give each pixel the best path for it, of its own and of pixels around it."""
    times = bin_times(light.shape[1])
    shift = shifts(paths, times)  # (N, G, 2, h, w)
    followed, _ = follow(light, paths, times)
    noise = _noise_in(_departure(followed)[0])
    place = places(light.shape[-2:], light)
    cost = _cost(light, shift, noise, place) - _BETTER
    for reach in REACHES:
        others, pixel = shift.flatten(1, 2), _pixels(shift)
        source = pixel.expand_as(cost)
        for down, right in ((-reach, 0), (reach, 0), (0, -reach), (0, reach)):
            moved = _moved(others, down, right).view_as(shift)
            other_cost = _cost(light, moved, noise, place)
            better = other_cost < cost
            cost = torch.where(better, other_cost, cost)
            source = torch.where(better, _moved(pixel, down, right), source)
        paths, shift = (
            x.flatten(1, 2)
            .flatten(2)
            .gather(2, source.long().flatten(2).expand(-1, x.shape[1] * 2, -1))
            .view_as(x)
            for x in (paths, shift)
        )
    return paths


def _pixels(like: Tensor) -> Tensor:
    """Return the numbers of pixels: (1, 1, h, w)."""
    height, width = like.shape[-2:]
    return torch.arange(height * width, device=like.device).to(like).view(1, 1, height, width)


def _cost(light: Tensor, shift: Tensor, noise: Tensor, place: Tensor) -> Tensor:
    """Cost of paths (N, 1, h, w): how much light along them departs from the middle's.

    An instant costs no more than `_HIDDEN_COST`, so that a path is good that is right for as long
    as its point is visible.

    Args:
        light: (N, G, h, w).
        shift: (N, G, 2, h, w), of paths at the groups' times.
        noise: (N, 1, 1, 1), what `_noise_in` returns.
        place: (2, h, w), what `places` returns.
    """
    size = light.shape[-2:]

    def costs(shift: Tensor, place: Tensor) -> Tensor:
        points = points_at(shift, size, place)
        departs, middle = _departure(each_sampled(light, points))
        costs = (departs / (noise + _ALIKE_SHARE * middle)).square().clamp(max=_HIDDEN_COST)
        costs = torch.where(are_inside(points) > 0, costs, _HIDDEN_COST / 2)
        return costs.mean(1, keepdim=True)

    return mean_around(by_rows(costs, [shift, place]), 2)


def _moved(maps: Tensor, down: int, right: int) -> Tensor:
    """Maps (N, C, h, w) moved by whole pixels; what comes in from outside is the border's."""
    height, width = maps.shape[-2:]
    pads = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    padded = F.pad(maps, pads, mode="replicate")
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def _gauss_newton(seen: Tensor, weights: Tensor, times: list[float], degree: int) -> Tensor:
    """Steps (N, degree, 2, h, w) of coefficients that make followed light constant."""
    slope_x, slope_y = slopes(_weighted_mean(seen, weights))
    strength, change = _along_basis(seen, weights, basis(times, seen)[:, :degree])
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
        ),
        2,
    ).chunk(5, 1)  # (N, degree, h, w)
    damping = _FAINT * strength + _DAMPING * (xx + yy)
    xx, yy = xx + damping, yy + damping
    determinant = (xx * yy - xy.square()).clamp(min=1e-20)
    steps = torch.stack([xy * y - yy * x, xy * x - xx * y], 2) / determinant[:, :, None]
    return steps.clamp(-_LARGEST_STEP, _LARGEST_STEP)


def _along_basis(seen: Tensor, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much followed light (N, G, h, w) changes along each function of the basis.

    Args:
        seen: Followed light.
        weights: Its weights, in the same shape.
        values: (G, degree), of the functions at the groups' times.

    Returns:
        (N, degree, h, w), the squared length of each function less its mean over the weights, and
        its product with the light.
    """

    def over_groups(maps: Tensor, of_groups: Tensor) -> Tensor:
        return torch.einsum("nghw,gk->nkhw", maps, of_groups)

    mean = over_groups(weights, values) / weights.sum(1, keepdim=True).clamp(min=1e-6)
    squares = weights.square()
    strength = over_groups(squares, values.square()) - 2 * mean * over_groups(squares, values)
    strength = (strength + mean.square() * squares.sum(1, keepdim=True)).clamp(min=0)
    weighted = weights * (seen - _weighted_mean(seen, weights))
    return strength, over_groups(weighted, values) - mean * weighted.sum(1, keepdim=True)


def _chance(seen: Tensor, weights: Tensor, times: list[float]) -> Tensor:
    """Return the variance by noise of coefficients (N, DEGREE, h, w), both axes together.

    It is the light's over the squared slopes of the neighbourhood that the coefficients are from.
    """
    slope_x, slope_y = slopes(_weighted_mean(seen, weights))
    strength, _ = _along_basis(seen, weights, basis(times, seen))
    information = strength * (slope_x.square() + slope_y.square())
    information = smooth(information, 2).clamp(min=1e-9)
    return _CHANCE * _noise_between(seen) / information


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


def mean_around(x: Tensor, reach: int) -> Tensor:
    """Return the mean over the pixels up to `reach` rows and columns away.

    By sums of shifted maps, which are faster on CPUs than `avg_pool2d`.
    """
    side = 2 * reach + 1
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    rows = padded[..., :width] / side**2
    for i in range(1, side):
        rows.add_(padded[..., i : i + width], alpha=1 / side**2)
    mean = rows[..., :height, :] + rows[..., 1 : height + 1, :]
    for i in range(2, side):
        mean.add_(rows[..., i : i + height, :])
    return mean


def smooth(x: Tensor, reach: int = 3) -> Tensor:
    """Return the mean over the pixels up to `reach` rows and columns away, taken twice."""
    return by_maps(lambda some: mean_around(mean_around(some, reach), reach), x, x.shape[-2:])
