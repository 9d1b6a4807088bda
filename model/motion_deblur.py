"""Blurred frames made sharp along the motion that spikes show. Nothing is learnt.

Two cameras saw the same light. The sharp frame must explain both: moved along the paths of
`spike_motion`, it averages to the blurred frame, which is fine across the motion; and its
luminance, seen by the spike pixels on their way, is what they counted, which is fine along the
motion. It is reached by multiplicative corrections (Richardson, JOSA 1972; Lucy, AJ 1974), first
at half the size, where colours find their place.

Corrections are raised to a power. Power 1 does not restore what the blur nearly removes, and a
larger one alone does not settle, so powers alternate: 3 and 1 are about Chebyshev's steps for
details of which the blur passes a fifth or more (Golub and Varga, 1961). If spikes are few, a
frame of less total variation is preferred (Dey et al., Microscopy Research and Technique 2006).

Letters in shape comments: N windows, K bins, h and w rows and columns of spikes, H and W of frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import DARK, LIMIT, luminance
from .spike_motion import (
    PARTS,
    Paths,
    along_motion,
    bin_times,
    enlarged,
    motion,
    points_at,
    sampled,
    slopes,
    smooth,
)

CORRECTIONS = (8, 8)
"""Number of corrections at half size, and at full size."""
POWERS = (3.0, 1.0)
"""Powers to which corrections are raised, in turn."""
INSTANTS = 12
"""Points of a path at which a frame is compared with the blurred one."""
SCATTER = 1 / 2
"""Share of the variance between parts of an exposure that is noise in their mean. It is less than
1 because what integrate-and-fire counts too little in one part, it counts in the next."""
EVENNESS = 0.3
"""Weight of total variation, per standard deviation of noise in the light along a path."""
FINE_GAP = 3.0
"""Distance between instants, in pixels, up to which the blurred frame corrects in full; from twice
as far on it does not correct."""

_LARGEST_RATIO = 1.5
_MOST = 0.1  # largest share of a pixel's light by which one step evens it out
_EDGE = 0.01  # difference between neighbours above which an edge counts alike, however high
_DARK = 0.02  # luminance below which ratios fade to 1
_LITTLE = 1e-3  # weight of a pixel itself, for paths that lead outside
_PIXELS = 1 << 20  # frame pixels corrected at once: points at all instants take memory


def sharp_along_motion(blur: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Return blurred frames made sharp along the motion that spikes show.

    Args:
        blur: (N, 3, H, W) float32 RGB.
        voxels: (N, K, h, w) float32, normalised as `relative`; H / h = W / w, a whole number. Only
            the change of light within the exposure is read from them, so the gain nearly cancels.

    Returns:
        (N, 3, H, W), frames at the middle of the exposure, in [0, 1]; and (N, INTEGRALS, H, W),
        the maps of `along_motion`, means less the blurred luminance, all relative to it; 0 in the
        dark.
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
    seen = _gray(blur)  # (N, 1, H, W)
    coarse = F.avg_pool2d(seen, scale)
    light = coarse + voxels * (coarse + DARK)  # (N, K, h, w)
    paths = motion(light)
    mean, middle, deviation = along_motion(light, paths, scale).split(1, 1)
    maps = torch.cat([mean - seen, middle - seen, deviation], 1) / (seen + DARK)
    noise = SCATTER * smooth(deviation.square()) / (PARTS - 1)
    velocity, acceleration = (scale * x for x in enlarged(paths, scale))
    full = _Seen(
        blur=blur + _DARK,
        blur_noise=_noise_variance(blur),
        light=(seen + _less_noise(mean - seen, noise)).clamp(min=0) + _DARK,
        noise=noise,
        paths=(velocity, acceleration),
        spike_pixel=scale,
    )
    half = full.halved()
    start = half.blur * (half.light / _gray(half.blur))
    sharp = _corrected(start, half, CORRECTIONS[0], by_spikes=False)
    colour = F.interpolate(sharp / _gray(sharp), blur.shape[-2:], mode="bilinear")
    sharp = _corrected(colour * full.light, full, CORRECTIONS[1], by_spikes=True)
    return (sharp - _DARK).clamp(0, 1), maps.clamp(-LIMIT, LIMIT)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the two cameras saw, at one size. All light has `_DARK` added, so it is above 0."""

    blur: Tensor  # (N, 3, H, W)
    blur_noise: Tensor  # (N, 3, 1, 1), variance of the noise in blur
    light: Tensor  # (N, 1, H, W), luminance along paths, as spike pixels saw it
    noise: Tensor  # (N, 1, H, W), variance of the noise in light
    paths: Paths  # in pixels of this size
    spike_pixel: float  # side of a spike pixel, in pixels of this size

    def halved(self) -> _Seen:
        """Return what was seen at half the size."""
        velocity, acceleration = (_halved(x) / 2 for x in self.paths)
        return _Seen(
            _halved(self.blur),
            self.blur_noise / 4,
            _halved(self.light),
            _halved(self.noise),
            (velocity, acceleration),
            self.spike_pixel / 2,
        )


def _corrected(sharp: Tensor, seen: _Seen, times: int, *, by_spikes: bool) -> Tensor:
    """Correct frames (N, 3, H, W) so that they explain what was seen."""
    speed = seen.paths[0].norm(dim=1, keepdim=True)
    slow = ((2 * FINE_GAP - speed / INSTANTS) / FINE_GAP).clamp(0, 1)
    kernel = _spline(seen.spike_pixel).to(sharp)
    forward = _Along(seen.paths)
    backward = _Along(_reversed(seen.paths))
    # A spike pixel that sees only one place tells nothing finer than itself.
    moving = (speed / seen.spike_pixel - 0.5).clamp(0, 1) * (2 * forward.inside).clamp(max=1)
    for number in range(times):
        for power in POWERS if by_spikes else ():
            expected = _blurred(_gray(sharp), kernel)
            ratio = 1 + _less_noise(seen.light - expected, seen.noise) / expected
            sharp = sharp * _blurred(_bounded(ratio), kernel).pow(power * moving)
        expected = backward.mean(sharp)
        ratio = _bounded(1 + _less_noise(seen.blur - expected, seen.blur_noise) / expected)
        sharp = sharp * forward.mean(ratio).pow(POWERS[number % len(POWERS)] * slow)
        if by_spikes:
            light = _gray(sharp)
            part = (EVENNESS * seen.noise.sqrt() / light).clamp(max=_MOST)
            sharp = sharp / (1 - part * _unevenness(light))
    return sharp


class _Along:
    """The points of paths at `INSTANTS` instants, where pictures are sampled and averaged."""

    def __init__(self, paths: Paths) -> None:
        points, inside = points_at(paths, bin_times(INSTANTS), paths[0].shape[-2:])
        self._points = points.flatten(1, 2)  # (N, INSTANTS H, W, 2)
        number = inside.sum(1, keepdim=True)
        self.inside = number / INSTANTS  # (N, 1, H, W), share of the path inside the picture
        self._weights = (inside / (_LITTLE + number))[:, None]  # (N, 1, INSTANTS, H, W)
        self._own_weight = _LITTLE / (_LITTLE + number)

    def mean(self, picture: Tensor) -> Tensor:
        """Return the mean of a picture (N, C, H, W) along the inner part of each path.

        A path that is all outside gives the pixel itself.
        """
        seen = sampled(picture, self._points).unflatten(2, (INSTANTS, -1))
        return (self._weights * seen).sum(2) + self._own_weight * picture


def _reversed(paths: Paths) -> Paths:
    """Return the paths by which light arrives at each pixel, from those by which it leaves.

    y + v(y) t + a(y) t^2 = x is solved for y to second order in t.
    """
    velocity, acceleration = paths
    change = [slopes(velocity[:, axis : axis + 1]) for axis in (0, 1)]
    carried = torch.cat([velocity[:, :1] * x + velocity[:, 1:] * y for x, y in change], 1)
    return -velocity, carried - acceleration


def _spline(spike_pixel: float) -> Tensor:
    """Return the kernel by which the mean light along a path blurs a point: a quadratic B-spline.

    It is three boxes in a row, each as wide as a spike pixel: the pixel itself, and two for linear
    sampling between pixels on the way.
    """
    radius = int(1.5 * spike_pixel + 0.5)
    x = torch.arange(-radius, radius + 1).abs() / spike_pixel
    spline = torch.where(x < 0.5, 0.75 - x.square(), (1.5 - x).clamp(min=0).square() / 2)
    return spline / spline.sum()


def _blurred(picture: Tensor, kernel: Tensor) -> Tensor:
    """Return a picture (N, 1, H, W) blurred by a kernel (n), along rows and columns."""
    pad = len(kernel) // 2
    picture = F.pad(picture, (pad, pad, pad, pad), mode="replicate")
    return F.conv2d(F.conv2d(picture, kernel[None, None, None]), kernel[None, None, :, None])


def _bounded(ratio: Tensor) -> Tensor:
    return ratio.clamp(1 / _LARGEST_RATIO, _LARGEST_RATIO)


def _less_noise(change: Tensor, noise: Tensor) -> Tensor:
    """Return maps (N, C, H, W), shrunk as far as noise of this variance explains them (Wiener)."""
    near = F.avg_pool2d(change.square(), 4, ceil_mode=True)
    near = F.avg_pool2d(F.pad(near, (1, 1, 1, 1), mode="replicate"), 3, 1)
    power = F.interpolate(near, change.shape[-2:], mode="bilinear").clamp(min=1e-8)
    return change * (1 - noise / power).clamp(0, 1)


def _unevenness(light: Tensor) -> Tensor:
    """Return how fast total variation falls as each pixel of light (N, 1, H, W) rises; -4 to 4."""
    along_x = F.pad(light[..., 1:] - light[..., :-1], (0, 1))
    along_y = F.pad(light[..., 1:, :] - light[..., :-1, :], (0, 0, 0, 1))
    length = (along_x.square() + along_y.square() + _EDGE**2).sqrt()
    along_x, along_y = along_x / length, along_y / length
    from_left = F.pad(along_x[..., :-1], (1, 0))
    from_above = F.pad(along_y[..., :-1, :], (0, 0, 1, 0))
    return along_x - from_left + along_y - from_above


def _noise_variance(frames: Tensor) -> Tensor:
    """Return the variance (N, 3, 1, 1) of the noise of frames (N, 3, H, W).

    It is measured by a filter to which smooth pictures are 0 (Immerkaer, CVIU 1996), in the median
    of all blocks of 8 x 8 pixels, so that edges do not count.
    """
    second = frames.new_tensor([1.0, -2.0, 1.0])
    kernel = (second[:, None] * second)[None, None].expand(3, 1, 3, 3)
    rough = F.conv2d(frames, kernel, groups=3).abs()
    blocks = F.avg_pool2d(rough, 8, ceil_mode=True).flatten(2).sort(-1).values
    deviation = blocks[..., blocks.shape[-1] // 2] * (math.sqrt(math.pi / 2) / 6)
    return deviation.square()[..., None, None]


def _gray(frames: Tensor) -> Tensor:
    """(N, 3, H, W) -> luminance (N, 1, H, W)."""
    return luminance(frames)[:, None]


def _halved(picture: Tensor) -> Tensor:
    return F.avg_pool2d(picture, 2, ceil_mode=True)
