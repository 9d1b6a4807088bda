"""Blurred frames made sharp along the motion that spikes show. Nothing is learnt.

A frame is sought that explains both cameras (`corrections`), first at half the size, where colours
find their place. In the end it must show what the spikes saw about the middle, whatever the paths
are.

Letters in shape comments: N windows, K bins, G groups of bins, I instants, h and w rows and columns
of spikes, H and W of frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .beyond_range import within_range
from .corrections import Explanation, Exposed, NearExplanation, Seen, corrected, gray, halved
from .neighbours import INSTANTS as NEAR_INSTANTS
from .neighbours import Near, Ways, at_instants, mean_along, ways_into
from .normalize import DARK, LIMIT
from .path_sums import enlarged_sources, sources_of
from .paths import Paths, bin_times, resized, shifts
from .picture_noise import less_noise, noise_variance
from .spike_motion import INTEGRALS, PARTS, about, along_motion, smooth, weights_at
from .told_by_spikes import FLOOR, SHORT, Told, as_seen, told_by_spikes

BASE = 2
"""Version of what networks with `MODEL.SPIKE_MOTION` correct. 1: paths of degree 2, all points
visible. 2: paths of degree 4, points hidden for a while, the middle as the spikes saw it."""
CORRECTIONS = (6, 8)
"""Number of corrections at half size, and at full size."""
INSTANTS = 12
"""Points of a path at which a frame is compared with the blurred one."""
SCATTER = 1 / 5
"""Share of the variance between parts of an exposure that is noise in their mean. It is less than
1 because what integrate-and-fire counts too little in one part, it counts in the next, and because
paths that are a little wrong differ between parts too."""
MAPS = INTEGRALS + 4
"""Number of maps that `sharp_along_motion` returns."""

_TIMES = bin_times(INSTANTS)
_NEAR = 12  # pixels of half the size in which the blurred frame has a frame's colours
_FURTHER = 1.05  # factor by which colours may leave those, for blur mixes them
_PIXELS = 1 << 18  # frame pixels of several windows that are corrected at once
_LARGEST_BAND = 1 << 20  # pixels of a frame that are corrected at once
_BESIDE = 16  # spike rows beside a band by which its corrections are right up to its edge


def sharp_along_motion(
    blur: Tensor, voxels: Tensor, near: Near | None = None
) -> tuple[Tensor, Tensor]:
    """Return blurred frames made sharp along the motion that spikes show.

    Args:
        blur: (N, 3, H, W) float32 RGB.
        voxels: (N, K, h, w) float32, normalised as `relative`; H / h = W / w, a whole number. Only
            the change of light within the exposure is read from them, so the gain nearly cancels.
        near: neighbouring exposures, whose blurred frames correct too; None: none are known, and
            the motion is found here.

    Returns:
        (N, 3, H, W), frames at the middle of the exposure, `within_range`; and (N, MAPS, H, W). The
        first `INTEGRALS` maps are those of `along_motion`, means less the blurred luminance, all
        relative to it; 0 in the dark. The others tell where the frame is unsure: the share of the
        exposure for which the point is hidden, by what share the blurred frame and the light about
        the middle are more than the frame explains, and log1p of the speed in pixels an exposure,
        the only one that may be more than `LIMIT`.
    """
    if near is not None:
        return _sharp_along_motion(blur, voxels, near)
    at_once = max(1, _PIXELS // (blur.shape[-2] * blur.shape[-1]))
    parts = [
        _sharp_along_motion(*part)
        for part in zip(blur.split(at_once), voxels.split(at_once), strict=True)
    ]
    sharp, maps = zip(*parts, strict=True)
    return torch.cat(sharp), torch.cat(maps)


def _sharp_along_motion(
    blur: Tensor, voxels: Tensor, near: Near | None = None
) -> tuple[Tensor, Tensor]:
    scale = blur.shape[-1] // voxels.shape[-1]
    told = told_by_spikes(blur, voxels, None if near is None else near.motion)
    paths = told.paths
    beside = [] if near is None else _beside(near, mean_along(told.light, paths, told.visible))
    noise = noise_variance(blur)
    parts = []
    for (first, last), (above, below) in _bands(blur.shape[-2:], scale, paths, beside):
        band = blur[..., above * scale : below * scale, :]
        kept = slice((first - above) * scale, (last - above) * scale)
        there = [other.rows(above, below) for other in beside]
        if last * scale == blur.shape[-2]:
            beside = []  # whose memory the last band takes
        found = _sharp_in_band(band, told.rows(above, below), noise, there)
        parts.append([x[..., kept, :] for x in found])
    if len(parts) == 1:
        return parts[0][0], parts[0][1]
    sharp, maps = zip(*parts, strict=True)
    return torch.cat(sharp, 2), torch.cat(maps, 2)


def _bands(
    size: Sequence[int], scale: int, paths: Paths, beside: Sequence[_Beside] = ()
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut frames into bands of spike rows that are corrected one after another, to bound memory.

    Args:
        size: (H, W) of the frames.
        scale: rows of a frame in a spike row.
        paths: what `motion` returns; the rows that are read beside a band reach as far as they do,
            and as ways into neighbours.
        beside: neighbouring exposures.

    Returns:
        For each band, the (first, last + 1) rows that are kept, and those that are read.
    """
    height = size[0] // scale
    if torch.compiler.is_compiling() or size[0] * size[1] <= _LARGEST_BAND:
        return [((0, height), (0, height))]
    own = float(shifts(paths, (-0.5, 0.5))[:, :, 1].abs().amax())
    reach = _BESIDE + math.ceil(max([own, *(other.ways.reach() for other in beside)]))
    rows = max(reach, _LARGEST_BAND // (size[1] * scale) - 2 * reach)
    count = math.ceil(height / rows)
    edges = [height * i // count for i in range(count + 1)]
    return [
        ((first, last), (max(0, first - reach), min(height, last + reach)))
        for first, last in itertools.pairwise(edges)
    ]


class _Beside(NamedTuple):
    """A neighbouring exposure."""

    blur: Tensor
    """(N, 3, H, W), its blurred frame."""
    brightest: float
    """The most that its camera shows there."""
    noise: Tensor
    """(N, 3, 1, 1), variance of the noise in it."""
    light: Tensor
    """(N, I, h, w), its luminance about each instant."""
    ways: Ways
    """Ways of the sharp frame's points into it."""

    def rows(self, first: int, last: int) -> _Beside:
        """Return the same of spike rows from `first` to before `last`."""
        scale = self.blur.shape[-1] // self.light.shape[-1]
        ways = Ways(*(maps[..., first:last, :] for maps in self.ways))
        blur = self.blur[..., first * scale : last * scale, :]
        return _Beside(blur, self.brightest, self.noise, self.light[..., first:last, :], ways)

    def explanation(self) -> NearExplanation:
        """Return how a sharp frame explains its blurred frame."""
        size = self.blur.shape[-2:]
        scale = size[-1] // self.light.shape[-1]
        shift = scale * self.ways.shift
        pace = NEAR_INSTANTS * shift.diff(dim=1).square().sum(2).mean(1, keepdim=True).sqrt()
        exposed = Exposed(
            blur=self.blur + FLOOR,
            noise=self.noise,
            shift=resized(shift.flatten(1, 2), size).unflatten(1, (NEAR_INSTANTS, 2)),
            visible=resized(self.ways.seen, size),
            share=_share(self.light, self.blur),
            pace=resized(pace, size),
        )
        return NearExplanation(exposed, exposed.sources(), self.brightest + FLOOR)


def _beside(near: Near, mean: Tensor) -> list[_Beside]:
    """Return neighbouring exposures; `mean` is what `mean_along` returns of the own one."""
    return [
        _Beside(
            other.blur,
            other.brightest,
            noise_variance(other.blur),
            at_instants(other.light, NEAR_INSTANTS),
            ways_into(other, mean),
        )
        for other in near.neighbours
    ]


def _share(light: Tensor, blur: Tensor) -> Tensor:
    """Return light (N, I, h, w) at instants relative to the exposure's, at the frames' size."""
    coarse = F.avg_pool2d(gray(blur), blur.shape[-1] // light.shape[-1])
    return resized((light.clamp(min=0) + FLOOR) / (coarse + FLOOR), blur.shape[-2:])


def _sharp_in_band(
    blur: Tensor,
    told: Told,
    blur_noise: Tensor,
    beside: list[_Beside],
) -> tuple[Tensor, Tensor]:
    """Correct a band of rows of frames, or all rows.

    Args:
        blur: (N, 3, H, W).
        told: what the spikes tell of the same rows.
        blur_noise: (N, 3, 1, 1), variance of the noise in the blurred frames.
        beside: the same rows of neighbouring exposures; it is emptied, to free memory.
    """
    light, paths, visible = told.light, told.paths, told.visible
    scale = blur.shape[-1] // light.shape[-1]
    seen = gray(blur)  # (N, 1, H, W)
    mean, middle, deviation = along_motion(light, paths, scale, visible).split(1, 1)
    integrals = torch.cat([mean - seen, middle - seen, deviation], 1) / (seen + DARK)
    noise = SCATTER * smooth(deviation.square()) / (PARTS - 1)
    larger = partial(resized, size=blur.shape[-2:])
    own = Exposed(
        blur=blur + FLOOR,
        noise=blur_noise,
        shift=larger(scale * shifts(paths, _TIMES).flatten(1, 2)).unflatten(1, (INSTANTS, 2)),
        visible=larger(weights_at(visible, _TIMES)),
        share=_share(at_instants(light, INSTANTS), blur),
        pace=larger(scale * told.pace),
    )
    explained = (seen + less_noise(mean - seen, noise)).clamp(min=0) + FLOOR
    del mean, middle, deviation
    # The frame moves on within `SHORT`, by half a gap between instants to each side.
    about_middle = slice(INSTANTS // 2 - 1, INSTANTS // 2 + 1)
    moved = 2 * INSTANTS * SHORT / 3 * own.shift[:, about_middle]
    explanation, colour = _explained(own, explained)
    del own
    sharp, visible, residue = corrected(
        resized(colour, blur.shape[-2:]) * explained,
        explanation,
        CORRECTIONS[1],
        by_spikes=Seen(explained, noise, spike_pixel=scale),
        near=[beside.pop(0).explanation() for _ in range(len(beside))],
    )
    lit, pace = explanation.blur, explanation.pace
    del explanation
    sharp = torch.lerp(lit, _in_colours_of(lit, sharp), told.moves(scale))
    sharp, differs = as_seen(sharp, told, about(light, SHORT) + FLOOR, moved)
    unsure = torch.cat([integrals, 1 - visible, residue, differs], 1).clamp(-LIMIT, LIMIT)
    sharp = within_range(sharp - FLOOR, blur, light)
    return sharp, torch.cat([unsure, pace.log1p()], 1)


def _explained(own: Exposed, light: Tensor) -> tuple[Explanation, Tensor]:
    """Return how sharp frames explain their blurred ones, and their colours at half the size.

    Args:
        own: the frames' exposures.
        light: (N, 1, H, W), luminance along paths.
    """
    half = own.halved()
    sources = sources_of(half.shift, half.visible)
    start = half.blur * (halved(light) / gray(half.blur))
    sharp, _, _ = corrected(start, Explanation(half, sources), CORRECTIONS[0])
    colour = sharp / gray(sharp)
    return Explanation(own, enlarged_sources(sources, own.shift)), colour


def _in_colours_of(blur: Tensor, sharp: Tensor) -> Tensor:
    """Bound frames' colours, relative to their luminance, by those of the blurred frame nearby.

    Where paths are wrong, corrections make colours that no camera saw.

    Args:
        blur: (N, 3, H, W).
        sharp: (N, 3, H, W), whose luminance is kept.
    """
    near = F.avg_pool2d(blur / gray(blur), 2, ceil_mode=True)
    least, most = -_largest_around(-near), _largest_around(near)
    least, most = (resized(bound, blur.shape[-2:]) for bound in (least, most))
    light = gray(sharp)
    colour = torch.minimum(torch.maximum(sharp / light, least / _FURTHER), most * _FURTHER)
    return colour * (light / gray(colour))


def _largest_around(maps: Tensor) -> Tensor:
    """Return the largest value up to `_NEAR` rows and columns away, of maps (N, C, H, W)."""
    side = 2 * _NEAR + 1
    for axis, pads in ((-2, (0, 0, _NEAR, _NEAR)), (-1, (_NEAR, _NEAR, 0, 0))):
        length = maps.shape[axis]
        maps, reach = F.pad(maps, pads, value=-math.inf), 1  # the largest of so many from each on
        while reach < side:
            step = min(reach, side - reach)
            whole = maps.shape[axis] - step
            maps = torch.maximum(maps.narrow(axis, 0, whole), maps.narrow(axis, step, whole))
            reach += step
        maps = maps.narrow(axis, 0, length)
    return maps
