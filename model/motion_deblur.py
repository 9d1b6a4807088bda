"""Blurred frames made sharp along the motion that spikes show. Nothing is learnt.

Two cameras saw the same light. The sharp frame must explain both: moved along the paths of
`spike_motion`, it averages to the blurred frame, which is fine across the motion; and its
luminance, seen by the spike pixels on their way, is what they counted, which is fine along the
motion. It is reached by multiplicative corrections (Richardson, JOSA 1972; Lucy, AJ 1974), first
at half the size, where colours find their place.

A point that is hidden for a part of the exposure has no part in the blurred frame there. What no
visible point explains is what the spikes saw, in the blurred frame's colour. In the end the frame
must show what the spikes saw about the middle, whatever the paths are.

Corrections are raised to a power. Power 1 does not restore what the blur nearly removes, and a
larger one alone does not settle, so powers alternate: 3 and 1 are about Chebyshev's steps for
details of which the blur passes a fifth or more (Golub and Varga, 1961). If spikes are few, a
frame of less total variation is preferred (Dey et al., Microscopy Research and Technique 2006).

Letters in shape comments: N windows, K bins, G groups of bins, I instants, h and w rows and columns
of spikes, H and W of frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import DARK, LIMIT, luminance
from .path_sums import PathSums, blurred_by, enlarged_sources, sources_of, spline
from .paths import Paths, bin_times, points_at, resized, sampled, shifts, speed
from .picture_noise import less_noise, noise_variance, unevenness, variance_of
from .spike_motion import (
    INTEGRALS,
    PARTS,
    about_middle,
    along_motion,
    less_chance,
    motion,
    slopes,
    smooth,
    visibility,
    weights_at,
)

BASE = 2
"""Version of what networks with `MODEL.SPIKE_MOTION` correct. 1: paths of degree 2, all points
visible. 2: paths of degree 4, points hidden for a while, the middle as the spikes saw it."""
CORRECTIONS = (6, 8)
"""Number of corrections at half size, and at full size."""
POWERS = (3, 1)
"""Powers to which corrections are raised, in turn."""
INSTANTS = 12
"""Points of a path at which a frame is compared with the blurred one."""
SCATTER = 1 / 5
"""Share of the variance between parts of an exposure that is noise in their mean. It is less than
1 because what integrate-and-fire counts too little in one part, it counts in the next, and because
paths that are a little wrong differ between parts too."""
EVENNESS = 0.3
"""Weight of total variation, per standard deviation of noise in the light along a path."""
SHORT = 3 / 32
"""Share of the exposure, about its middle, whose light the frame must show, path or not."""
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
FINE_GAP = 3.0
"""Distance between instants, in pixels, up to which the blurred frame corrects in full; from twice
as far on it does not correct."""

MAPS = INTEGRALS + 4
"""Number of maps that `sharp_along_motion` returns."""

_TIMES = bin_times(INSTANTS)
_LARGEST_RATIO = 1.5
_MOST = 0.1  # largest share of a pixel's light by which one step evens it out
_NEAR = 12  # pixels of half the size in which the blurred frame has a frame's colours
_FURTHER = 1.05  # factor by which colours may leave those, for blur mixes them
_FAINT = 1e-4  # squared slope of luminance below which there is no pattern
_DARK = 0.02  # luminance below which ratios fade to 1
_LITTLE = 1e-3  # weight of a pixel itself, for paths that lead outside
_PIXELS = 1 << 18  # frame pixels of several windows that are corrected at once
_LARGEST_BAND = 3 << 18  # pixels of a frame that are corrected at once, in about 1.2 GB
_BESIDE = 16  # spike rows beside a band by which its corrections are right up to its edge


def sharp_along_motion(blur: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Return blurred frames made sharp along the motion that spikes show.

    Args:
        blur: (N, 3, H, W) float32 RGB.
        voxels: (N, K, h, w) float32, normalised as `relative`; H / h = W / w, a whole number. Only
            the change of light within the exposure is read from them, so the gain nearly cancels.

    Returns:
        (N, 3, H, W), frames at the middle of the exposure, in [0, 1]; and (N, MAPS, H, W). The
        first `INTEGRALS` maps are those of `along_motion`, means less the blurred luminance, all
        relative to it; 0 in the dark. The others tell where the frame is unsure: the share of the
        exposure for which the point is hidden, by what share the blurred frame and the light about
        the middle are more than the frame explains, and log1p of the speed in pixels an exposure.
    """
    at_once = max(1, _PIXELS // (blur.shape[-2] * blur.shape[-1]))
    parts = [
        _sharp_along_motion(*part)
        for part in zip(blur.split(at_once), voxels.split(at_once), strict=True)
    ]
    sharp, maps = zip(*parts, strict=True)
    return torch.cat(sharp), torch.cat(maps)


def _sharp_along_motion(blur: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
    scale = blur.shape[-1] // voxels.shape[-1]
    coarse = F.avg_pool2d(_gray(blur), scale)
    light = coarse + voxels * (coarse + DARK)  # (N, K, h, w)
    paths, chance = motion(light)
    visible, variance = visibility(light, paths)  # (N, G, h, w), (N, 1, 1, 1)
    spikes, enough = _believed(voxels)
    blur_noise = noise_variance(blur)
    sure = enough * (spikes - FEWEST).clamp(0, 1)
    finer = _aliasing(blur, coarse, blur_noise)
    sure = sure * ((FINE[1] - finer) / (FINE[1] - FINE[0])).clamp(0, 1)
    pace = sure * speed(less_chance(paths, SURE * chance))
    told = enough * (SHORT * spikes / SPIKES).clamp(max=1)
    along = _Along(light, paths, visible, pace, sure, told)
    noise = blur_noise, SHORT_NOISE * variance
    parts = []
    for (first, last), (above, below) in _bands(blur.shape[-2:], scale, paths):
        band = blur[..., above * scale : below * scale, :]
        kept = slice((first - above) * scale, (last - above) * scale)
        found = _sharp_in_band(band, along.rows(above, below), *noise)
        parts.append([x[..., kept, :] for x in found])
    if len(parts) == 1:
        return parts[0][0], parts[0][1]
    sharp, maps = zip(*parts, strict=True)
    return torch.cat(sharp, 2), torch.cat(maps, 2)


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
    return spikes, (4 * share - 2).clamp(of_bins, 1)


def _aliasing(blur: Tensor, coarse: Tensor, noise: Tensor) -> Tensor:
    """Return how much of the blurred frame is finer than the spikes' pixels: (N, 1, h, w).

    It is the squared difference from its luminance at their size, over the squared slopes of that:
    below 0.3 in most photographs. Patterns as fine seem to move as they do not.

    Args:
        blur: (N, 3, H, W).
        coarse: (N, 1, h, w), its luminance at the spikes' size.
        noise: (N, 3, 1, 1), variance of the noise in it.
    """
    gray = _gray(blur)
    scale = gray.shape[-1] // coarse.shape[-1]
    fine = F.avg_pool2d((gray - resized(coarse, gray.shape[-2:])).square(), scale)
    slope_x, slope_y = slopes(coarse)
    fine = smooth((fine - noise.mean(1, keepdim=True)).clamp(min=0))
    return fine / (smooth(slope_x.square() + slope_y.square()) + _FAINT)


def _bands(
    size: Sequence[int], scale: int, paths: Paths
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut frames into bands of spike rows that are corrected one after another, to bound memory.

    Args:
        size: (H, W) of the frames.
        scale: rows of a frame in a spike row.
        paths: what `motion` returns; the rows that are read beside a band reach as far as they do.

    Returns:
        For each band, the (first, last + 1) rows that are kept, and those that are read.
    """
    height = size[0] // scale
    if torch.compiler.is_compiling() or size[0] * size[1] <= _LARGEST_BAND:
        return [((0, height), (0, height))]
    reach = _BESIDE + math.ceil(float(shifts(paths, (-0.5, 0.5))[:, :, 1].abs().amax()))
    rows = max(reach, _LARGEST_BAND // (size[1] * scale) - 2 * reach)
    count = math.ceil(height / rows)
    edges = [height * i // count for i in range(count + 1)]
    return [
        ((first, last), (max(0, first - reach), min(height, last + reach)))
        for first, last in itertools.pairwise(edges)
    ]


class _Along(NamedTuple):
    """What the spikes tell of a frame, at their size."""

    light: Tensor
    """(N, K, h, w), luminance in each bin."""
    paths: Paths
    """Paths of the light."""
    visible: Tensor
    """What `visibility` returns."""
    pace: Tensor
    """(N, 1, h, w), the speed that is sure, in pixels of the light an exposure."""
    sure: Tensor
    """(N, 1, h, w), share by which motion is believed, 0 to 1."""
    told: Tensor
    """(N, 1, h, w), share by which light about the middle is believed, 0 to 1."""

    def rows(self, first: int, last: int) -> _Along:
        """Return the same of rows from `first` to before `last`."""
        return _Along(*(maps[..., first:last, :] for maps in self))


def _sharp_in_band(
    blur: Tensor, along: _Along, blur_noise: Tensor, middle_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Correct a band of rows of frames, or all rows.

    Args:
        blur: (N, 3, H, W).
        along: what the spikes tell of the same rows.
        blur_noise: (N, 3, 1, 1), variance of the noise in the blurred frames.
        middle_noise: (N, 1, 1, 1), that in the light about the middle.
    """
    light, paths, visible, pace, sure, told = along
    scale = blur.shape[-1] // light.shape[-1]
    seen = _gray(blur)  # (N, 1, H, W)
    coarse = F.avg_pool2d(seen, scale)
    mean, middle, deviation = along_motion(light, paths, scale, visible).split(1, 1)
    integrals = torch.cat([mean - seen, middle - seen, deviation], 1) / (seen + DARK)
    noise = SCATTER * smooth(deviation.square()) / (PARTS - 1)
    larger = partial(resized, size=blur.shape[-2:])
    full = _Seen(
        blur=blur + _DARK,
        blur_noise=blur_noise,
        light=(seen + less_noise(mean - seen, noise)).clamp(min=0) + _DARK,
        noise=noise,
        shift=larger(scale * shifts(paths, _TIMES).flatten(1, 2)).unflatten(1, (INSTANTS, 2)),
        visible=larger(weights_at(visible, _TIMES)),
        share=larger((_at_instants(light).clamp(min=0) + _DARK) / (coarse + _DARK)),
        pace=larger(scale * pace),
        spike_pixel=scale,
    )
    half = full.halved()
    sources = sources_of(half.shift, half.visible)
    start = half.blur * (half.light / _gray(half.blur))
    sharp, _, _ = _corrected(start, half, sources, CORRECTIONS[0], by_spikes=False)
    colour = resized(sharp / _gray(sharp), blur.shape[-2:])
    sources = enlarged_sources(sources, full.shift)
    sharp, visible, residue = _corrected(
        colour * full.light, full, sources, CORRECTIONS[1], by_spikes=True
    )
    sharp = _in_colours_of(full.blur, sharp)
    # Where nothing moves, the blurred frame is sharp, and corrections would only add noise.
    moves = torch.minimum(((full.pace - STILL) / MOVING).clamp(0, 1), larger(sure))
    sharp = torch.lerp(full.blur, sharp, moves)
    middle = about_middle(light, SHORT) + _DARK
    sharp, beside = _as_seen_in_the_middle(sharp, full, middle, told, middle_noise)
    maps = torch.cat([integrals, 1 - visible, residue, beside, full.pace.log1p()], 1)
    return (sharp - _DARK).clamp(0, 1), maps.clamp(-LIMIT, LIMIT)


def _at_instants(light: Tensor) -> Tensor:
    """Return light (N, K, h, w) about each of the instants: (N, I, h, w)."""
    bins = light.shape[1]
    spans = [(i * bins // INSTANTS, -(-(i + 1) * bins // INSTANTS)) for i in range(INSTANTS)]
    return torch.stack([light[:, start:stop].mean(1) for start, stop in spans], 1)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the two cameras saw, at one size. All light has `_DARK` added, so it is above 0."""

    blur: Tensor  # (N, 3, H, W)
    blur_noise: Tensor  # (N, 3, 1, 1), variance of the noise in blur
    light: Tensor  # (N, 1, H, W), luminance along paths, as spike pixels saw it
    noise: Tensor  # (N, 1, H, W), variance of the noise in light
    shift: Tensor  # (N, I, 2, H, W), of paths from the middle on, in pixels of this size
    visible: Tensor  # (N, I, H, W), of the points of paths
    share: Tensor  # (N, I, H, W), light at each instant relative to the exposure's
    pace: Tensor  # (N, 1, H, W), speed in pixels an exposure
    spike_pixel: float  # side of a spike pixel, in pixels of this size

    def halved(self) -> _Seen:
        """Return what was seen at half the size."""
        return _Seen(
            _halved(self.blur),
            self.blur_noise / 4,
            _halved(self.light),
            _halved(self.noise),
            _halved(self.shift.flatten(1, 2)).unflatten(1, (INSTANTS, 2)) / 2,
            _halved(self.visible),
            _halved(self.share),
            _halved(self.pace) / 2,
            self.spike_pixel / 2,
        )


def _corrected(
    sharp: Tensor, seen: _Seen, sources: Tensor, times: int, *, by_spikes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Correct frames (N, 3, H, W) so that they explain what was seen.

    Returns:
        (N, 3, H, W), frames; (N, 1, H, W), the share of the exposure for which the frame's points
        are visible; and (N, 1, H, W), the last correction of luminance, relative to it.
    """
    size = sharp.shape[-2:]
    slow = ((2 * FINE_GAP - seen.pace / INSTANTS) / FINE_GAP).clamp(0, 1)
    kernel = spline(seen.spike_pixel)

    points, inside = points_at(seen.shift, size)
    weights = inside * seen.visible
    number = weights.sum(1, keepdim=True)  # (N, 1, H, W)
    forward = PathSums(points, weights / (_LITTLE + number))
    itself = _LITTLE / (_LITTLE + number)

    points, inside = points_at(sources, size)
    came = sampled(seen.visible.flatten(0, 1)[:, None], points.flatten(0, 1)).view_as(inside)
    came = came * inside
    backward = PathSums(points, came / INSTANTS)
    hidden = ((1 - came) * seen.share).mean(1, keepdim=True) * seen.blur
    # A spike pixel that sees only one place tells nothing finer than itself.
    moving = (seen.pace / seen.spike_pixel - 0.5).clamp(0, 1)
    moving = moving * (2 * number / INSTANTS).clamp(max=1)
    residue = torch.zeros_like(number)
    for i in range(times):
        for power in POWERS if by_spikes else ():
            expected = blurred_by(_gray(sharp), kernel).clamp(min=_LITTLE)
            ratio = 1 + less_noise(seen.light - expected, seen.noise) / expected
            ratio = blurred_by(_bounded(ratio), kernel).pow(power)
            sharp = sharp * (1 + moving * (ratio - 1))
        expected = (backward(sharp) + hidden).clamp(min=_LITTLE)
        ratio = _bounded(1 + less_noise(seen.blur - expected, seen.blur_noise) / expected)
        residue = _gray(ratio) - 1
        ratio = (forward(ratio) + itself * ratio).pow(POWERS[i % len(POWERS)])
        sharp = sharp * (1 + slow * (ratio - 1))
        if by_spikes:
            light = _gray(sharp)
            part = (EVENNESS * seen.noise.sqrt() / light).clamp(max=_MOST)
            sharp = sharp / (1 - part * unevenness(light))
    return sharp, number / INSTANTS, residue


def _in_colours_of(blur: Tensor, sharp: Tensor) -> Tensor:
    """Bound frames' colours, relative to their luminance, by those of the blurred frame nearby.

    Where paths are wrong, corrections make colours that no camera saw.

    Args:
        blur: (N, 3, H, W).
        sharp: (N, 3, H, W), whose luminance is kept.
    """
    near = F.avg_pool2d(blur / _gray(blur), 2, ceil_mode=True)
    least, most = -_largest_around(-near), _largest_around(near)
    least, most = (resized(bound, blur.shape[-2:]) for bound in (least, most))
    light = _gray(sharp)
    colour = torch.minimum(torch.maximum(sharp / light, least / _FURTHER), most * _FURTHER)
    return colour * (light / _gray(colour))


def _largest_around(maps: Tensor) -> Tensor:
    rows = F.max_pool2d(maps, (2 * _NEAR + 1, 1), 1, (_NEAR, 0))
    return F.max_pool2d(rows, (1, 2 * _NEAR + 1), 1, (0, _NEAR))


def _as_seen_in_the_middle(
    sharp: Tensor, seen: _Seen, middle: Tensor, told: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Correct frames (N, 3, H, W) by what the spikes saw about the middle, without any path.

    Where a path is right, that differs from the frame by noise only, and nothing happens. Where it
    is wrong, as on things too thin to be followed, the frame becomes what SDM makes of it.

    Args:
        sharp: (N, 3, H, W).
        seen: What the cameras saw, of the same size.
        middle: (N, 1, h, w), the spikes' luminance over `SHORT` of the exposure.
        told: (N, 1, h, w), share by which it is believed, 0 to 1.
        noise: (N, 1, 1, 1), variance of the noise in it.

    Returns:
        (N, 3, H, W), frames; and (N, 1, H, W), by what share the light about the middle was more
        than theirs, noise included.
    """
    scale = int(seen.spike_pixel)
    # The frame moves on between the thirds of that time, half a gap between instants apart.
    gap = 2 * INSTANTS * SHORT / 3
    about = slice(INSTANTS // 2 - 1, INSTANTS // 2 + 1)
    points, inside = points_at(-gap * seen.shift[:, about], sharp.shape[-2:])
    weights = inside / (1 + inside.sum(1, keepdim=True))
    for step in range(2):
        gray = _gray(sharp)
        moved = torch.cat([sampled(gray, points[:, i]) for i in range(points.shape[1])], 1)
        moved = gray + (weights * (moved - gray)).sum(1, keepdim=True)
        expected = F.avg_pool2d(moved, scale).clamp(min=_LITTLE)  # (N, 1, h, w)
        if step == 0:
            beside = _bounded(middle / expected) - 1
            noise = torch.maximum(
                noise, SHORT_ERROR * variance_of((middle - expected)[..., ::2, ::2])
            )
        ratio = 1 + told * less_noise(middle - expected, noise) / expected
        sharp = sharp * resized(_bounded(ratio), sharp.shape[-2:])
    return sharp, resized(beside, sharp.shape[-2:])


def _bounded(ratio: Tensor) -> Tensor:
    return ratio.clamp(1 / _LARGEST_RATIO, _LARGEST_RATIO)


def _gray(frames: Tensor) -> Tensor:
    """(N, 3, H, W) -> luminance (N, 1, H, W)."""
    return luminance(frames)[:, None]


def _halved(picture: Tensor) -> Tensor:
    return F.avg_pool2d(picture, 2, ceil_mode=True)
