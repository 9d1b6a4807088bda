"""Frames corrected until they explain what two cameras saw.

Two cameras saw the same light. The sharp frame must explain both: moved along the paths of
`spike_motion`, it averages to the blurred frame, which is fine across the motion; and its
luminance, seen by the spike pixels on their way, is what they counted, which is fine along the
motion. It is reached by multiplicative corrections (Richardson, JOSA 1972; Lucy, AJ 1974).

A point that is hidden for a part of the exposure has no part in the blurred frame there. What no
visible point explains is what the spikes saw, in the blurred frame's colour.

The blurred frames of neighbouring exposures lack other details, where motion turned meanwhile, and
show what is hidden in this one. They correct too, by the ways that points take into them
(`neighbours`), as far as these ways explain them.

Corrections are raised to a power. Power 1 does not restore what the blur nearly removes, and a
larger one alone does not settle, so powers alternate: 3 and 1 are about Chebyshev's steps for
details of which the blur passes a fifth or more (Golub and Varga, 1961). If spikes are few, a
frame of less total variation is preferred (Dey et al., Microscopy Research and Technique 2006).

Letters in shape comments: N windows, I instants, H and W rows and columns of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalize import luminance
from .path_sums import PathSums, blurred_by, enlarged_sources, sources_of, spline
from .paths import are_inside, each_sampled, for_each, places, points_at, sampled, strips
from .picture_noise import less_noise, unevenness
from .spike_motion import mean_around

POWERS = (3, 1)
"""Powers to which corrections are raised, in turn."""
EVENNESS = 0.3
"""Weight of total variation, per standard deviation of noise in the light along a path."""
FINE_GAP = 3.0
"""Distance between instants, in pixels, up to which the blurred frame corrects in full; from twice
as far on it does not correct."""
NEAR_EVERY = 3
"""One correction in so many is by the neighbours' frames too, the first one on."""
LEADS_BACK = 0.75
"""Distance in pixels by which a way into a neighbour and back may miss, to explain half."""
EXPLAINED = 0.1
"""Root mean square, around a pixel, of what a neighbour's frame would change, relative to it, of
which half is believed: ways are wrong where it is large."""
LITTLE = 1e-3
"""Least light, and the weight of a pixel itself, for paths that lead outside."""

_LARGEST_RATIO = 1.5
_MOST = 0.1  # largest share of a pixel's light by which one step evens it out


@dataclass(frozen=True, slots=True)
class Exposed:
    """A blurred frame, and the ways of the sharp frame's points while it was exposed.

    All light has so much added that it is above 0.
    """

    blur: Tensor  # (N, 3, H, W)
    noise: Tensor  # (N, 3, 1, 1), variance of the noise in blur
    shift: Tensor  # (N, I, 2, H, W), of points since the sharp frame, in pixels of this size
    visible: Tensor  # (N, I, H, W), of the points
    share: Tensor  # (N, I, H, W), light at each instant relative to the exposure's
    pace: Tensor  # (N, 1, H, W), speed in pixels an exposure

    @property
    def instants(self) -> int:
        """I, the points of a way at which a frame is compared with the blurred one."""
        return self.shift.shape[1]

    def halved(self) -> Exposed:
        """Return the same at half the size."""
        return Exposed(
            halved(self.blur),
            self.noise / 4,
            self._halved_shift(),
            halved(self.visible),
            halved(self.share),
            halved(self.pace) / 2,
        )

    def sources(self) -> Tensor:
        """Return `sources_of` the points, found at half the size: (N, I, 2, H, W)."""
        sources = sources_of(self._halved_shift(), halved(self.visible))
        return enlarged_sources(sources, self.shift)

    def _halved_shift(self) -> Tensor:
        return halved(self.shift.flatten(1, 2)).unflatten(1, (self.instants, 2)) / 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What the spike camera saw during the sharp frame's own exposure."""

    light: Tensor  # (N, 1, H, W), luminance along paths, as spike pixels saw it
    noise: Tensor  # (N, 1, H, W), variance of the noise in light
    spike_pixel: float  # side of a spike pixel, in pixels of this size


class Explanation:
    """How a sharp frame explains a blurred one, and how it is corrected by it.

    It keeps little of what it is made from: a large frame's ways take more memory than all else.
    """

    def __init__(self, exposed: Exposed, sources: Tensor) -> None:
        """Put sums along ways together; `sources` lead back, as `sources_of` returns them."""
        size, instants = exposed.blur.shape[-2:], exposed.instants
        self.blur, self.noise = exposed.blur, exposed.noise
        self.pace, self.instants = exposed.pace, instants
        self.slow = ((2 * FINE_GAP - exposed.pace / instants) / FINE_GAP).clamp(0, 1)
        """(N, 1, H, W), share by which the blurred frame corrects."""
        place = places(size, exposed.blur)
        parts = strips(exposed.shift)
        self._forward = PathSums(exposed.shift, parts)
        self._backward = PathSums(exposed.shift, parts)

        def put_together(rows: slice) -> tuple[Tensor, ...]:
            points = points_at(exposed.shift[..., rows, :], size, place[:, rows])
            weights = are_inside(points) * exposed.visible[:, :, rows]
            number = weights.sum(1, keepdim=True)
            self._forward.put(rows, points, weights / (LITTLE + number))
            back = sources[..., rows, :]
            points = points_at(back, size, place[:, rows])
            came = are_inside(points) * self._surely(exposed, back, points)
            explained = came.mean(1, keepdim=True)
            hidden = ((1 - came) * exposed.share[:, :, rows]).mean(1, keepdim=True)
            self._backward.put(rows, points, came / instants)
            return number, explained, hidden

        number, explained, hidden = zip(*for_each(put_together, parts), strict=True)
        self.number = torch.cat(number, 2)
        """(N, 1, H, W), instants at which a point is seen."""
        self.seen = self.number / instants
        """(N, 1, H, W), the same as a share of the exposure."""
        self.explained = torch.cat(explained, 2)
        """(N, 1, H, W), share of the blurred frame's exposure in which points are seen there."""
        self._itself = LITTLE / (LITTLE + self.number)
        self._hidden = torch.cat(hidden, 2) * exposed.blur

    def _surely(self, exposed: Exposed, sources: Tensor, points: Tensor) -> Tensor:
        """Return how surely points are seen that come from sources (N, I, 2, h, W), in any rows."""
        return each_sampled(exposed.visible, points)

    def change(self, sharp: Tensor) -> Tensor:
        """Return by what share the blurred frame is more than a sharp one explains."""
        expected = (self._backward(sharp) + self._hidden).clamp(min=LITTLE)
        return less_noise(self.blur - expected, self.noise) / expected

    def along(self, ratio: Tensor) -> Tensor:
        """Return the mean of ratios on the ways of points; a pixel's own where it has none."""
        return self._forward(ratio) + self._itself * ratio


class NearExplanation(Explanation):
    """The same of a neighbouring exposure, into which ways are less sure."""

    def __init__(self, exposed: Exposed, sources: Tensor, brightest: float) -> None:
        """Put sums together; where the blurred frame is `brightest`, light may have been more."""
        super().__init__(exposed, sources)
        self._clipped = exposed.blur >= brightest

    def _surely(self, exposed: Exposed, sources: Tensor, points: Tensor) -> Tensor:
        """Return the same, less where the way there does not lead back."""
        seen = super()._surely(exposed, sources, points)
        shift = exposed.shift.flatten(0, 1)
        there = sampled(shift, points.flatten(0, 1)).view_as(sources)
        missed = (there + sources).square().sum(2)
        return seen / (1 + (missed / LEADS_BACK**2).square())

    def change(self, sharp: Tensor) -> Tensor:
        """Return by what share the blurred frame is more, as far as its ways explain it."""
        change = super().change(sharp)
        change = torch.where(self._clipped, change.clamp(min=0), change) * self.explained.square()
        return change / (1 + mean_around(gray(change).square(), 3) / EXPLAINED**2)

    def along(self, ratio: Tensor) -> Tensor:
        """Return the mean of ratios on the ways of points; 1 where they have none."""
        return self._forward(ratio) + self._itself


def corrected(
    sharp: Tensor,
    own: Explanation,
    times: int,
    *,
    by_spikes: Seen | None = None,
    near: Sequence[NearExplanation] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Correct frames (N, 3, H, W) so that they explain what was seen.

    Args:
        sharp: the frames.
        own: how they explain their own blurred frame.
        times: number of corrections.
        by_spikes: the light along paths, which corrects too; None: it does not.
        near: neighbouring exposures that correct too, now and then.

    Returns:
        (N, 3, H, W), frames; (N, 1, H, W), the share of the exposure for which the frame's points
        are visible; and (N, 1, H, W), the last correction of luminance, relative to it.
    """
    residue = torch.zeros_like(own.number)
    moving = None if by_spikes is None else _moving(own, by_spikes)
    for i in range(times):
        if by_spikes is not None and moving is not None:
            sharp = _by_light(sharp, by_spikes, moving)
        ratio = bounded(1 + own.change(sharp))
        residue = gray(ratio) - 1
        ratio, slow = own.along(ratio), own.slow
        if near and i % NEAR_EVERY == 0:
            ratio, slow = _among(ratio, own, near, sharp)
        sharp = sharp * (1 + slow * (ratio.pow(POWERS[i % len(POWERS)]) - 1))
        if by_spikes is not None:
            light = gray(sharp)
            part = (EVENNESS * by_spikes.noise.sqrt() / light).clamp(max=_MOST)
            sharp = sharp / (1 - part * unevenness(light))
    return sharp, own.seen, residue


def _moving(own: Explanation, seen: Seen) -> Tensor:
    """Return how far the light along paths corrects: (N, 1, H, W), 0 to 1."""
    # A spike pixel that sees only one place tells nothing finer than itself.
    moving = (own.pace / seen.spike_pixel - 0.5).clamp(0, 1)
    return moving * (2 * own.number / own.instants).clamp(max=1)


def _by_light(sharp: Tensor, seen: Seen, moving: Tensor) -> Tensor:
    """Return frames corrected by the light along paths, as far as points move."""
    kernel = spline(seen.spike_pixel)
    for power in POWERS:
        expected = blurred_by(gray(sharp), kernel).clamp(min=LITTLE)
        ratio = 1 + less_noise(seen.light - expected, seen.noise) / expected
        ratio = blurred_by(bounded(ratio), kernel).pow(power)
        sharp = sharp * (1 + moving * (ratio - 1))
    return sharp


def _among(
    ratio: Tensor, own: Explanation, near: Sequence[NearExplanation], sharp: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean of the own ratio and those of neighbours, and how far to follow it.

    Each counts as long as a point is seen in it, and as far as its instants are close enough.
    """
    weight = own.seen * own.slow + LITTLE
    total, slow = weight * (ratio - 1), own.slow
    for other in near:
        share = other.seen * other.slow
        total = total + share * (other.along(bounded(1 + other.change(sharp))) - 1)
        weight, slow = weight + share, torch.maximum(slow, share)
    return 1 + total / weight, slow


def bounded(ratio: Tensor) -> Tensor:
    """Return ratios, none so large or small that a step would go too far."""
    return ratio.clamp(1 / _LARGEST_RATIO, _LARGEST_RATIO)


def gray(frames: Tensor) -> Tensor:
    """(N, 3, H, W) -> luminance (N, 1, H, W)."""
    return luminance(frames)[:, None]


def halved(picture: Tensor) -> Tensor:
    """Return maps (N, C, H, W) at half the size."""
    return F.avg_pool2d(picture, 2, ceil_mode=True)
