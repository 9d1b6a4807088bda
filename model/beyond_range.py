"""Light where a blurred frame is clipped or black, and the spikes are not.

A frame shows no more than its white, while spikes go on to count. What their rate is in the
frame's brightness is told by the pixels that are within the range. Where the spikes then show more
than noise explains, their light fills the frame. Frames are linear light.

Letters in shape comments: N windows, h and w rows and columns of spikes, H and W of frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant, numbers
from .corrections import gray
from .normalize import LUMINANCE
from .paths import resized
from .picture_noise import less_noise, middling

MOST = 16.0
"""Most light that is told, in the frame's white."""
FEWEST = 64
"""Fewest spike pixels within the range by which a frame's brightness is told."""

_LIT = 0.1  # least luminance that tells the curve: darker light is mostly noise
_COLOURED = 0.25  # how much clipped channels follow the colour around: bright things are whiter
_LEAST_SHARE = 1 / 4  # of a spike pixel that is clipped, so that noise is not made larger
_CELL = 8  # side of squares, in pixels, in and around which the most of a frame bounds its light
_PARTS = 8  # of an exposure, in whose means its brightest moment is sought
_UNSURE = 0.03  # least deviation of the spikes' light, relative to it
_RISE = 0.2  # deviation of light beyond white that is expected
_MEDIAN_OF_NORMAL = 0.6745
_FURTHEST = 8  # times that colours spread to twice the distance


class Shown(NamedTuple):
    """What spikes tell of the light in a frame."""

    light: Tensor
    """(N, 1, h, w), luminance in the frame's white, without an end of its range."""
    scatter: float
    """Standard deviation of its error, relative to it."""


def filled(blur: Tensor, rate: Tensor, saturated: Tensor, ends: tuple[float, float]) -> Tensor:
    """Return blurred frames with the spikes' light where they are clipped or black.

    Args:
        blur: (N, 3, H, W), in [0, 1].
        rate: (N, 1, h, w), spikes a sample over the exposure; H / h = W / w, a whole number.
        saturated: (N, 1, h, w), 1 where a pixel fired in every sample, which tells less than there
            was; else 0.
        ends: value of a channel up to which it is black, and from which on it may be clipped.

    Returns:
        (N, 3, H, W), at most `MOST`; `blur` itself where nothing is clipped or black, or where too
        little is within the range to tell how bright spikes are.
    """
    darkest, brightest = ends
    clipped = blur >= brightest
    black = blur.amax(1, keepdim=True) <= darkest  # (N, 1, H, W)
    if not bool(clipped.any() | black.any()):
        return blur
    scale = blur.shape[-1] // rate.shape[-1]
    outside = clipped.any(1, keepdim=True) | black
    within = (F.max_pool2d(outside.to(blur), scale) == 0) & (saturated == 0)
    shown = _shown(blur, rate, within)
    if shown is None:
        return blur
    coarse = F.avg_pool2d(gray(blur), scale)
    more = less_noise(shown.light - coarse, (shown.scatter * shown.light).square())
    # Light that only some of a spike pixel's frame pixels lack is missing from these.
    share = F.avg_pool2d(outside.to(blur), scale)
    more = resized(more, blur.shape[-2:]) / resized(share, blur.shape[-2:]).clamp(min=_LEAST_SHARE)
    light = (gray(blur) + more).clamp(0, MOST)  # (N, 1, H, W)
    colour = _colours_around(blur, outside)
    above = _explaining(blur, clipped, light, colour, shown.scatter)
    below = torch.maximum(light * colour, blur)
    found = torch.where(black, below, above).clamp(max=MOST)
    return torch.where(clipped | black, found, blur)


def within_range(sharp: Tensor, blur: Tensor, light: Tensor) -> Tensor:
    """Return frames from 0 to 1, or to the most near by where the blurred ones are `filled`.

    Args:
        sharp: (N, 3, H, W).
        blur: (N, 3, H, W).
        light: (N, K, h, w), luminance in each bin: what passes by is brighter than its mean.
    """
    sharp = sharp.clamp(min=0)
    on_cpu = blur.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and not bool((blur > 1).any()):  # to ask a GPU would wait for it
        return sharp.clamp(max=1)
    most, shown = _most_around(blur, _CELL), _most_around(gray(blur), _CELL)
    brighter = _brightest_moment(light, blur.shape[-1] // light.shape[-1]) / shown.clamp(min=_LIT)
    most = torch.where(most > 1, most * brighter.clamp(1.0, MOST), 1.0)
    return torch.minimum(sharp, resized(most, blur.shape[-2:]))


def _most_around(maps: Tensor, side: int) -> Tensor:
    """Return the most of maps (N, C, H, W) in squares of some pixels and in those beside them."""
    return F.max_pool2d(F.max_pool2d(maps, side, ceil_mode=True), 3, 1, 1)


def _brightest_moment(light: Tensor, scale: int) -> Tensor:
    """Return the most of light (N, K, h, w) in a part of the exposure, around cells of frames."""
    parts = light.split(max(1, light.shape[1] // _PARTS), 1)
    peak = torch.stack([part.mean(1) for part in parts], 1).amax(1, keepdim=True)
    return _most_around(peak, max(1, _CELL // scale))


def _shown(blur: Tensor, rate: Tensor, within: Tensor) -> Shown | None:
    """Return what spikes tell of a frame's light; None: too little is within its range to tell.

    Args:
        blur: (N, 3, H, W).
        rate: (N, 1, h, w).
        within: (N, 1, h, w), whether the frame and the spikes are within their range.
    """
    scale = blur.shape[-1] // rate.shape[-1]
    seen = F.avg_pool2d(gray(blur), scale)
    lit = within & (seen > _LIT) & (rate > 0)
    if int(lit.sum()) < FEWEST:
        return None
    light = rate * (seen[lit].square().sum() / (rate[lit] * seen[lit]).sum())
    return Shown(light, _deviation(light[lit] / seen[lit] - 1))


def _deviation(errors: Tensor) -> float:
    """Return the standard deviation of normal errors, by their median."""
    return float(middling(errors.abs()[None])) / _MEDIAN_OF_NORMAL


def _explaining(
    linear: Tensor, clipped: Tensor, light: Tensor, colour: Tensor, scatter: float
) -> Tensor:
    """Return colours (N, 3, H, W) of which clipped channels explain the light.

    The others stay as they are. Clipped ones rise alike, and more where they are below the colour
    around. What luminance hardly shows, as blue alone, rises less than the light asks for.
    """
    weights = constant(numbers, *LUMINANCE, like=linear)[:, None, None]
    missing = (light - gray(linear)).clamp(min=0)
    coloured = (light * colour - linear).clamp(min=0)
    rise = clipped * (missing + _COLOURED * coloured)  # (N, 3, H, W)
    shows = (weights * rise).sum(1, keepdim=True)
    doubt = (max(scatter, _UNSURE) / _RISE) ** 2 * rise.square().sum(1, keepdim=True)
    return linear + rise * missing * shows / (shows.square() + doubt).clamp(min=1e-9)


def _colours_around(blur: Tensor, outside: Tensor) -> Tensor:
    """Return colours relative to luminance (N, 3, H, W), of the nearest pixels within the range.

    Args:
        blur: (N, 3, H, W).
        outside: (N, 1, H, W), whether a pixel is clipped or black.
    """
    known = (~outside).to(blur)
    sums = torch.cat([blur * known, gray(blur) * known, known], 1)  # (N, 5, H, W)
    levels = [sums]
    while len(levels) <= _FURTHEST and min(levels[-1].shape[-2:]) > 1:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    found = levels[-1]
    for level in reversed(levels[:-1]):
        wide = resized(found, level.shape[-2:])
        found = level + (1 - level[:, 4:].clamp(max=1)) * wide
    return (found[:, :3] + 1e-4) / (found[:, 3:4] + 1e-4)
