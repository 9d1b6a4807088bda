"""Blurred frames made sharp along the motion that spikes show. Nothing is learnt.

Two cameras saw the same light. A sharp frame is sought that, moved along the paths of
`spike_motion`, averages to the blurred frame, as fine as its pixels across the motion; and
whose luminance, seen by the spikes' pixels on their way, is what they counted, fine along the
motion. Both are reached by corrections as of Richardson (JOSA 1972) and Lucy (AJ 1974), first at
half the size, where colour is brought into place.

A correction to the power 1 leaves what the blur nearly hides; always to a greater one it does not
settle. So powers alternate: 3 and 1 are about Chebyshev's steps for what passes by a fifth or more
(Golub and Varga, 1961). Where spikes are few, a frame of less total variation is preferred (Dey et
al., Microscopy Research and Technique 2006).

Letters in shape comments: N windows, K bins, h and w rows and columns of spikes, H and W of frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import DARK, LIMIT, LUMINANCE
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

INTEGRALS = 3
"""Maps beside the sharp frames."""
CORRECTIONS = (8, 8)
"""At half size, and at full size."""
POWERS = (3.0, 1.0)
"""Of corrections, in turn."""
INSTANTS = 12
"""Points of a path at which a frame is compared with the blurred one."""
SCATTER = 1 / 2
"""Of the variance between parts of an exposure, that makes noise in their mean: what
integrate-and-fire counts too little in one part, it counts in the next."""
EVENNESS = 0.3
"""Weight of total variation, per standard deviation of noise in the light along a path."""
FINE_GAP = 3.0
"""Pixels between instants up to which the blurred frame corrects in full; from twice as many on
not at all."""

_LARGEST_RATIO = 1.5
_MOST = 0.1  # share of a pixel's light that a neighbour may even out at once
_EDGE = 0.01  # difference between neighbours from which on it is one edge, however high
_DARK = 0.02  # luminance below which ratios fade to 1
_LITTLE = 1e-3  # weight of a pixel itself where its path is outside
_PIXELS = 1 << 20  # of frames that are corrected at once: points at all instants take memory


def sharp_along_motion(blur: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Restore blurred frames by the paths that spikes show.

    Args:
        blur: (N, 3, H, W) float32 RGB.
        voxels: (N, K, h, w) float32, normalised as `relative`; H / h = W / w, a whole number. The
            light of each bin is taken relative to the blurred frame's, so the gain nearly cancels.

    Returns:
        (N, 3, H, W), frames at the middle of the exposure, in [0, 1]; and (N, INTEGRALS, H, W),
        what `along_motion` returns less the blurred luminance, relative to it; 0 in the dark.
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
    seen = _luminance(blur)  # (N, 1, H, W)
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
    start = half.blur * (half.light / _luminance(half.blur))
    sharp = _corrected(start, half, CORRECTIONS[0], by_spikes=False)
    colour = F.interpolate(sharp / _luminance(sharp), blur.shape[-2:], mode="bilinear")
    sharp = _corrected(colour * full.light, full, CORRECTIONS[1], by_spikes=True)
    return (sharp - _DARK).clamp(0, 1), maps.clamp(-LIMIT, LIMIT)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the two cameras saw, of one size. Brightness is above 0, by `_DARK`."""

    blur: Tensor  # (N, 3, H, W)
    blur_noise: Tensor  # (N, 3, 1, 1), its variance
    light: Tensor  # (N, 1, H, W), luminance along paths, by the spikes' pixels
    noise: Tensor  # (N, 1, H, W), its variance
    paths: Paths  # in pixels of this size
    spike_pixel: float  # its side, in pixels of this size

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
    """Correct frames (N, 3, H, W) until they explain what was seen."""
    speed = seen.paths[0].norm(dim=1, keepdim=True)
    slow = ((2 * FINE_GAP - speed / INSTANTS) / FINE_GAP).clamp(0, 1)
    kernel = _spline(seen.spike_pixel).to(sharp)
    forward = _Along(seen.paths)
    backward = _Along(_reversed(seen.paths))
    # A pixel that sees but one place says nothing about what is finer than itself.
    moving = (speed / seen.spike_pixel - 0.5).clamp(0, 1) * (2 * forward.inside).clamp(max=1)
    for number in range(times):
        for power in POWERS if by_spikes else ():
            expected = _blurred(_luminance(sharp), kernel)
            ratio = 1 + _less_noise(seen.light - expected, seen.noise) / expected
            sharp = sharp * _blurred(_bounded(ratio), kernel).pow(power * moving)
        expected = backward.mean(sharp)
        ratio = _bounded(1 + _less_noise(seen.blur - expected, seen.blur_noise) / expected)
        sharp = sharp * forward.mean(ratio).pow(POWERS[number % len(POWERS)] * slow)
        if by_spikes:
            light = _luminance(sharp)
            part = (EVENNESS * seen.noise.sqrt() / light).clamp(max=_MOST)
            sharp = sharp / (1 - part * _unevenness(light))
    return sharp


class _Along:
    """Paths, with their points at some instants, for pictures of their size."""

    def __init__(self, paths: Paths) -> None:
        points, inside = points_at(paths, bin_times(INSTANTS), paths[0].shape[-2:])
        self._points = points.flatten(1, 2)  # (N, INSTANTS H, W, 2)
        number = inside.sum(1, keepdim=True)
        self.inside = number / INSTANTS  # (N, 1, H, W), the share of the path
        self._weights = (inside / (_LITTLE + number))[:, None]  # (N, 1, INSTANTS, H, W)
        self._own_weight = _LITTLE / (_LITTLE + number)

    def mean(self, picture: Tensor) -> Tensor:
        """Mean of a picture (N, C, H, W) along paths, over what of them is inside; else itself."""
        seen = sampled(picture, self._points).unflatten(2, (INSTANTS, -1))
        return (self._weights * seen).sum(2) + self._own_weight * picture


def _reversed(paths: Paths) -> Paths:
    """Return the paths by which light came to a pixel, from those it takes from there.

    y + v(y) t + a(y) t^2 = x is solved for y to the second order of t.
    """
    velocity, acceleration = paths
    change = [slopes(velocity[:, axis : axis + 1]) for axis in (0, 1)]
    carried = torch.cat([velocity[:, :1] * x + velocity[:, 1:] * y for x, y in change], 1)
    return -velocity, carried - acceleration


def _spline(spike_pixel: float) -> Tensor:
    """How the mean light along a path sees a point: the quadratic B-spline.

    A pixel is a box, and is somewhere between two of its neighbours on its way, where light is
    sampled linearly: three boxes in a row, each as wide as a pixel.
    """
    radius = int(1.5 * spike_pixel + 0.5)
    x = torch.arange(-radius, radius + 1).abs() / spike_pixel
    spline = torch.where(x < 0.5, 0.75 - x.square(), (1.5 - x).clamp(min=0).square() / 2)
    return spline / spline.sum()


def _blurred(picture: Tensor, kernel: Tensor) -> Tensor:
    """Blur a picture (N, 1, H, W) by a kernel (n), along rows and columns."""
    pad = len(kernel) // 2
    picture = F.pad(picture, (pad, pad, pad, pad), mode="replicate")
    return F.conv2d(F.conv2d(picture, kernel[None, None, None]), kernel[None, None, :, None])


def _bounded(ratio: Tensor) -> Tensor:
    return ratio.clamp(1 / _LARGEST_RATIO, _LARGEST_RATIO)


def _less_noise(change: Tensor, noise: Tensor) -> Tensor:
    """Shrink maps (N, C, H, W) where it is no more than noise of this variance (Wiener, 1949)."""
    near = F.avg_pool2d(change.square(), 4, ceil_mode=True)
    near = F.avg_pool2d(F.pad(near, (1, 1, 1, 1), mode="replicate"), 3, 1)
    power = F.interpolate(near, change.shape[-2:], mode="bilinear").clamp(min=1e-8)
    return change * (1 - noise / power).clamp(0, 1)


def _unevenness(light: Tensor) -> Tensor:
    """By how much total variation falls as light (N, 1, H, W) rises; from -4 to 4."""
    along_x = F.pad(light[..., 1:] - light[..., :-1], (0, 1))
    along_y = F.pad(light[..., 1:, :] - light[..., :-1, :], (0, 0, 0, 1))
    length = (along_x.square() + along_y.square() + _EDGE**2).sqrt()
    along_x, along_y = along_x / length, along_y / length
    from_left = F.pad(along_x[..., :-1], (1, 0))
    from_above = F.pad(along_y[..., :-1, :], (0, 0, 1, 0))
    return along_x - from_left + along_y - from_above


def _noise_variance(frames: Tensor) -> Tensor:
    """Variance of the noise of frames (N, 3, H, W): (N, 3, 1, 1).

    By what no smooth picture has (Immerkaer, CVIU 1996), in a middling block of 8 x 8 pixels, so
    that edges do not count.
    """
    second = frames.new_tensor([1.0, -2.0, 1.0])
    kernel = (second[:, None] * second)[None, None].expand(3, 1, 3, 3)
    rough = F.conv2d(frames, kernel, groups=3).abs()
    blocks = F.avg_pool2d(rough, 8, ceil_mode=True).flatten(2).sort(-1).values
    middling = blocks[..., blocks.shape[-1] // 2] * (math.sqrt(math.pi / 2) / 6)
    return middling.square()[..., None, None]


def _luminance(frames: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    weights = torch.tensor(LUMINANCE, dtype=frames.dtype, device=frames.device)
    return torch.einsum("nchw,c->nhw", frames, weights)[:, None]


def _halved(picture: Tensor) -> Tensor:
    return F.avg_pool2d(picture, 2, ceil_mode=True)
