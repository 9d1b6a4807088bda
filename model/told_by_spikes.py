"""What the spikes of an exposure tell of its frame, and how far they are believed.

Letters in shape comments: N windows, K bins, G groups of bins, h and w rows and columns of spikes,
H and W of frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .corrections import LITTLE, bounded, gray
from .neighbours import Motion, light_in, motion_in
from .paths import Paths, are_inside, points_at, resized, sampled, speed
from .picture_noise import less_noise, noise_variance, variance_of
from .spike_motion import less_chance, slopes, smooth, visibility

FLOOR = 0.02
"""Luminance that is added to all light, so that it is above 0; ratios fade to 1 below it."""
SHORT = 3 / 32
"""Share of the exposure, about an instant, whose light the frame must show, path or not."""
SHORT_NOISE = 2.0
"""Variance of the noise in that light, over that between neighbouring groups along paths."""
SHORT_ERROR = 2.0
"""The same, over the variance of its difference from the frame, which shows the noise of few
spikes."""
SPIKES = 3.0
"""Number of spikes that a pixel must have within `SHORT` for the frame to show them in full."""
FEWEST = 1.5
"""Number of spikes that a pixel must have within an exposure for anything to move."""
BINS = 16
"""Number of bins with which spikes are believed in full, and not at all with half of them, where
less than half of the bins hold spikes: exposures of so few samples show chance."""
FINE = (0.3, 0.8)
"""Detail finer than the spikes' pixels, see `_aliasing`, up to which motion is believed in full,
and from which on it is not."""
STILL, MOVING = 1.0, 3.0
"""Speed in pixels an exposure up to which a frame stays as it is, and how much more moves fully."""
SURE = 5.0
"""Variance of paths by noise, over that which `motion` tells, above which something moves."""

_FAINT = 1e-4  # squared slope of luminance below which there is no pattern


class Told(NamedTuple):
    """What the spikes tell of a frame, at their size."""

    light: Tensor
    """(N, K, h, w), luminance in each bin."""
    paths: Paths
    """Paths of the light."""
    visible: Tensor
    """(N, G, h, w), what `visibility` returns."""
    pace: Tensor
    """(N, 1, h, w), the speed that is sure, in pixels of the light an exposure."""
    sure: Tensor
    """(N, 1, h, w), share by which spikes are enough to show motion, 0 to 1."""
    short: Tensor
    """(N, 1, h, w), share by which light about an instant is believed, 0 to 1."""
    short_noise: Tensor
    """(N, 1, 1, 1), variance of the noise in that light."""

    def rows(self, first: int, last: int) -> Told:
        """Return the same of rows from `first` to before `last`."""
        light, paths, visible, pace, sure, short = (x[..., first:last, :] for x in self[:-1])
        return Told(light, paths, visible, pace, sure, short, self.short_noise)

    def moves(self, scale: int) -> Tensor:
        """Return how surely a frame `scale` times as large moves: (N, 1, H, W), 0 to 1.

        Where nothing moves, the blurred frame is sharp, and corrections would only add noise.
        """
        size = [scale * side for side in self.light.shape[-2:]]
        pace = resized(scale * self.pace, size)
        return torch.minimum(((pace - STILL) / MOVING).clamp(0, 1), resized(self.sure, size))


def told_by_spikes(blur: Tensor, voxels: Tensor, found: Motion | None = None) -> Told:
    """Return what the spikes tell.

    Args:
        blur: (N, 3, H, W), blurred frames.
        voxels: (N, K, h, w), relative.
        found: how their light moves; None: that is found here.
    """
    light = light_in(blur, voxels)  # (N, K, h, w)
    paths, chance = motion_in(light) if found is None else found
    visible, variance = visibility(light, paths)  # (N, G, h, w), (N, 1, 1, 1)
    spikes, enough = _believed(voxels)
    sure = enough * (spikes - FEWEST).clamp(0, 1)
    finer = _aliasing(blur, blur.shape[-1] // voxels.shape[-1])
    fine = ((FINE[1] - finer) / (FINE[1] - FINE[0])).clamp(0, 1)
    return Told(
        light=light,
        paths=paths,
        visible=visible,
        pace=sure * fine * speed(less_chance(paths, SURE * chance)),
        sure=sure,
        short=enough * (SHORT * spikes / SPIKES).clamp(max=1),
        short_noise=SHORT_NOISE * variance,
    )


def as_seen(sharp: Tensor, told: Told, light: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Correct frames by what the spikes saw about their instant, without any path.

    Where a path is right, that differs from the frame by noise only, and nothing happens. Where it
    is wrong, as on things too thin to be followed, the frame becomes what SDM makes of it.

    Args:
        sharp: (N, 3, H, W), with `FLOOR` added, as all light here.
        told: what the spikes tell of the frames' exposures.
        light: (N, 1, h, w), the spikes' luminance over `SHORT` of the exposure.
        moved: (N, 2, 2, H, W), in pixels, how far points are from their place at the frame's
            instant a third of `SHORT` before and after it.

    Returns:
        (N, 3, H, W), frames; and (N, 1, H, W), by what share the light about the instant was more
        than theirs, noise included.
    """
    scale = sharp.shape[-1] // light.shape[-1]
    points = points_at(-moved, sharp.shape[-2:])
    weights = are_inside(points)
    weights = weights / (1 + weights.sum(1, keepdim=True))
    noise = told.short_noise
    for step in range(2):
        still = gray(sharp)
        there = torch.cat([sampled(still, points[:, i]) for i in range(points.shape[1])], 1)
        mean = still + (weights * (there - still)).sum(1, keepdim=True)
        expected = F.avg_pool2d(mean, scale).clamp(min=LITTLE)  # (N, 1, h, w)
        if step == 0:
            beside = bounded(light / expected) - 1
            noise = torch.maximum(
                noise, SHORT_ERROR * variance_of((light - expected)[..., ::2, ::2])
            )
        ratio = 1 + told.short * less_noise(light - expected, noise) / expected
        sharp = sharp * resized(bounded(ratio), sharp.shape[-2:])
    return sharp, resized(beside, sharp.shape[-2:])


def _believed(voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many spikes bins hold, and how far their light is believed.

    Light changes with each spike, so the share of bins in which it changes tells the number of
    spikes, as long as some bins have none.

    Args:
        voxels: (N, K, h, w), relative.

    Returns:
        (N, 1, h, w), spikes an exposure; and (N, 1, h, w), 0 to 1: less where bins are few and
        most of them hold no spike, as in exposures of few samples.
    """
    steps = voxels.diff(dim=1)
    number = max(1, steps.shape[1])
    share = smooth((steps != 0).sum(1, keepdim=True).to(voxels) / number)
    spikes = -number * torch.log1p(-share.clamp(max=0.999))
    of_bins = max(0.0, min(1.0, 2 * voxels.shape[1] / BINS - 1))
    return spikes, (4 * share - 2).clamp(of_bins, 1.0)  # exporters take numbers of one type only


def _aliasing(blur: Tensor, scale: int) -> Tensor:
    """Return how much of the blurred frame is finer than the spikes' pixels: (N, 1, h, w).

    It is the squared difference from its luminance at their size, over the squared slopes of that:
    below 0.3 in most photographs. Patterns as fine seem to move as they do not.

    Args:
        blur: (N, 3, H, W).
        scale: rows of a frame in a spike row.
    """
    seen = gray(blur)
    coarse = F.avg_pool2d(seen, scale)
    fine = F.avg_pool2d((seen - resized(coarse, seen.shape[-2:])).square(), scale)
    slope_x, slope_y = slopes(coarse)
    fine = smooth((fine - noise_variance(blur).mean(1, keepdim=True)).clamp(min=0))
    return fine / (smooth(slope_x.square() + slope_y.square()) + _FAINT)
