"""The pixels of a sensor, from recordings of a moving scene; see `scene_motion`.

A pixel whose rate departs by a factor from the light that paths show on it has a gain of its own;
one that departs by an amount, in light and shade alike, is hot. Both halves of the recordings are
measured apart, too: what they say alike is the pixels', and by what they differ is chance. Large
sensors are measured in tiles, so that memory has a bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ...model.spike_motion import smooth
from ..host.reporter import Parts
from ..spikes.sensor import Mask, PixelCorrection, Plane, Sensor, Span
from ..spikes.stream import SpikeStream
from .measure import DEAD, LEAST_HOT, MOST_DARK, CalibrateError, Figures, neighbours_alike
from .scene_motion import BINS, BRIGHT, GROUPS, Seen, follow_points, offsets, solve, travel

WINDOWS = 12
"""Most windows of each half."""
FEWEST_IN_WINDOW = 24
"""Spikes of the median pixel in a window, at least."""
IN_WINDOW = 64
"""Spikes of the median pixel in a window, where recordings are long enough."""
TRAVEL = 4.0
"""Mean way of points in a window, in pixels, from which on it is long enough."""
LEAST_TRAVEL = 2.0
"""The same in half of a recording, at least."""
MOST_ERROR = 0.06
"""Largest standard error of gains that are worth a file."""
TILE, MARGIN = 192, 24
"""Side of a tile, and what is seen around it, in pixels."""
TOLD = 1.0
"""Information on a gain, in that of the prior, from which on it counts as told."""
FEWEST_TOLD = 0.5
"""Share of the pixels whose gains must be told, at least."""
TOO_BRIGHT = 1.5
"""Rate, in that of the pixels around, from which on a pixel is hot whatever the scene."""
HOT_ERRORS = 8
"""Dark rate of a hot pixel in its own standard errors, at least."""

_SMOOTH = 3
"""Rows and columns of two means around a pixel, which take what is smooth from the gains."""
_REACH = 2
"""Rows and columns around a pixel that it is compared with."""
_SLICES = 16
"""Parts of the recordings in which pixels are compared with those around."""
_IN_SLICE = 4096
"""Most samples of a part, so that long recordings take no longer."""
_CERTAIN = 2.0
"""Departure from the pixels around, in its own changes from part to part, that is the pixel's."""
_CHANGE = 0.05
"""Change of the light around a pixel, as a share of it, from which on it tells of the pixel."""
_POINT = 2.0
"""Rate, in the second largest of those around, from which on a pixel is sharper than a lens."""
_FAINT = 1e-3

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Window:
    """Samples [start, stop) of a recording."""

    stream: SpikeStream
    start: int
    stop: int

    def light(self, rows: Span, columns: Span) -> Plane:
        """Return spikes a sample in each bin, (K, rows, columns)."""
        shape = rows[1] - rows[0], columns[1] - columns[0]
        out = np.empty((BINS, *shape), np.float32)
        exposure, samples = (self.start, self.stop), self.stop - self.start
        beside = samples // 4
        known = max(0, self.start - beside), min(self.stream.n_frames, self.stop + beside)
        self.stream.light(BINS, exposure, known, rows, columns, out=out)
        return out * np.float32(BINS / samples)


Halves = tuple[list[Window], list[Window]]


class _Before(NamedTuple):
    """What is known before motion is looked at; arrays are (H, W)."""

    dark: Plane
    hot: Mask
    dead: Mask
    level: float
    """Spikes a sample of the mean pixel."""


def measure_moving(
    streams: Sequence[SpikeStream],
    dark: Plane | None = None,
    hot: Mask | None = None,
    *,
    work: Parts,
) -> tuple[Sensor, Plane, Figures]:
    """Return the pixels of a sensor that saw a moving scene, and how surely their gains are known.

    Args:
        streams: recordings by one camera, of pixels as they are.
        dark: (H, W) spikes a sample without light, if they were measured; None: 0.
        hot: (H, W), hot pixels by the same measurement.
        work: hears of the parts that `parts_of_scenes` counts.

    Returns:
        The sensor, the standard errors of its gains (H, W), and figures.

    Raises:
        CalibrateError: too few spikes, or a scene of which too little moves.
    """
    shape = streams[0].geometry.shape
    slices = _slices(streams, dark, work)
    rates = np.mean(slices, axis=0)
    halves = _windows(streams, rates)
    tiles = list(_tiles(shape))
    followed = len(tiles) * sum(map(len, halves))
    work.did("travel", "looking for motion")
    work.skip({"followed": parts_of_scenes(streams)["followed"] - followed})
    bright, dead = _outliers(slices)
    before = _Before(
        np.zeros(shape, np.float32) if dark is None else dark,
        bright if hot is None else bright | hot,
        dead if hot is None else dead & ~hot,
        float(rates.mean()),
    )
    planes = np.zeros((len(_PLANES), *shape), np.float32)
    for done, (rows, columns) in enumerate(tiles, start=1):
        (top, bottom), (left, right) = _around(rows, shape[0]), _around(columns, shape[1])
        note = f"tile {done} of {len(tiles)}"
        told = _told(halves, before, (top, bottom), (left, right), work, note, offset=dark is None)
        inside = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
        planes[:, slice(*rows), slice(*columns)] = told[:, *inside]
        work.did("solved", note, finished=len(streams) * (done == len(tiles)))
    return _summed_up(planes, before, dark_is_known=dark is not None)


def parts_of_scenes(streams: Sequence[SpikeStream]) -> dict[str, int]:
    """Return the parts of `measure_moving`: samples of slices, windows to follow, tiles."""
    tiles = len(list(_tiles(streams[0].geometry.shape)))
    windows = 2 * len(streams) * max(1, WINDOWS // len(streams))
    slices = sum(stop - start for _, start, stop in _spans_of_slices(streams))
    return {"slices": slices, "travel": 1, "followed": tiles * windows, "solved": tiles}


_PLANES = ("gains", "first half", "second half", "told", "dark", "factor")


def _told(
    halves: Halves,
    before: _Before,
    rows: Span,
    columns: Span,
    work: Parts,
    note: str,
    *,
    offset: bool,
) -> npt.NDArray[np.float32]:
    """Return what windows tell of a tile, (6, h, w): see `_PLANES`.

    The first three are logarithms; the last two are of pixels that are found hot, and else 0.
    """
    cut = slice(*rows), slice(*columns)
    dark, bad = before.dark[cut], (before.hot | before.dead)[cut]
    lights = [[window.light(rows, columns) - dark for window in half] for half in halves]
    scale = np.float32(BRIGHT / before.level)

    def seen_with(bad: Mask, *, again: bool = False) -> list[list[Seen]]:
        ones, none = np.ones(bad.shape, np.float32), np.zeros(bad.shape, np.bool_)
        fill = PixelCorrection(Sensor(ones, np.zeros_like(ones), none, none, bad))
        seen: list[list[Seen]] = []
        for half, part in zip(halves, lights, strict=True):
            seen.append([])
            for window, light in zip(half, part, strict=True):
                bright = np.maximum(fill.corrected(light, 1) * scale, 0)
                samples = (window.stop - window.start) / GROUPS / float(scale)
                seen[-1].append(follow_points(bright, ~bad, samples))
                if again:
                    work.skip({}, note)  # some tiles need it, as a part of being solved
                else:
                    work.did("followed", note)
        return seen

    if bad.all():
        return np.zeros((len(_PLANES), *bad.shape), np.float32)
    found = np.zeros((2, *bad.shape), np.float32)
    seen = seen_with(bad)
    gains = solve([*seen[0], *seen[1]])
    extreme = (gains.gains > math.log(TOO_BRIGHT)) & (gains.told >= TOLD) & ~bad
    hot = extreme
    if offset:
        grouped = [
            [light.reshape(GROUPS, -1, *bad.shape).mean(axis=1) * scale for light in half]
            for half in lights
        ]
        answers = offsets([*seen[0], *seen[1]], [*grouped[0], *grouped[1]])
        adds = ~before.dead[cut] & (answers.dark > LEAST_HOT * scale)
        adds &= answers.dark > HOT_ERRORS * answers.errors
        for half, rates in zip(seen, grouped, strict=True):
            part = offsets(half, rates)
            adds &= part.dark > HOT_ERRORS / 2 * part.errors
        found[0, adds], found[1, adds] = answers.dark[adds] / scale, answers.gains[adds]
        hot = hot | adds
    only_extreme = hot & (found[0] == 0)
    found[0, only_extreme] = 1  # of which nothing is known: it is filled
    if (hot & ~bad).any():
        seen = seen_with(bad | hot, again=True)
        gains = solve([*seen[0], *seen[1]])
    logarithms = [gains.gains, *(solve(half).gains for half in seen)]
    good = np.where(bad | hot, np.float32(0), np.float32(1))
    return np.stack([*(_without_smooth(x, good) for x in logarithms), gains.told, *found])


def _without_smooth(gains: Plane, good: Plane) -> Plane:
    """Return gains less what is smooth in them, which paths hardly tell, and pixels don't have."""
    sums, number = (
        smooth(torch.from_numpy(plane)[None, None], _SMOOTH)[0, 0].numpy()
        for plane in (gains * good, good)
    )
    return np.asarray(gains - sums / np.maximum(number, 1e-3), np.float32)


def _summed_up(
    planes: npt.NDArray[np.float32], before: _Before, *, dark_is_known: bool
) -> tuple[Sensor, Plane, Figures]:
    """Return the pixels that tiles tell of."""
    gains, first, second, told, offset, factor = planes
    hot, dead = before.hot | (offset > 0), before.dead
    good = ~(hot | dead)
    if 2 * good.sum() < good.size:
        raise CalibrateError(
            f"expected most pixels to be good, found {hot.sum()} hot and {dead.sum()} dead of "
            f"{good.size}; check --geometry"
        )
    share = float((told[good] >= TOLD).mean())
    if share < FEWEST_TOLD:
        raise CalibrateError(
            "expected a scene with detail that moves over the whole picture, found motion that "
            f"tells the gains of {share:.0%} of the pixels; move the camera, or give more or "
            "longer recordings"
        )
    one, other = (half[good] - half[good].mean() for half in (first, second))
    alike = float((one * other).mean()) / max(float(one.std() * other.std()), 1e-12)
    alike = max(alike, 0.0)
    sure = 2 * alike / (1 + alike)  # Spearman and Brown: of both halves, by that between them
    shrunk = float((told[good] / (1 + told[good])).mean())
    spread = math.sqrt(sure) * float(gains[good].std()) / max(shrunk, 1e-6)
    # Both halves may err alike, where paths tell little: that, the information says.
    errors = spread / np.sqrt(1 + told)
    alone = float(np.sqrt(np.square(errors[good]).mean()))
    error = max(alone, spread * math.sqrt(1 - sure))
    errors *= error / max(alone, 1e-9)
    if error > MOST_ERROR:
        raise CalibrateError(
            f"expected recordings whose halves agree on the gains, found a difference that leaves "
            f"them uncertain by {error:.0%}; give more, longer or brighter recordings in which the "
            "whole picture moves"
        )
    gain = np.exp(gains * sure / max(shrunk, 0.5))
    gain /= gain[good].mean()
    dark = before.dark.copy()
    dark[offset > 0] = offset[offset > 0]
    gain[offset > 0] = factor[offset > 0]
    filled = dead | (before.hot & ~(dark > 0)) | (hot & (dark > MOST_DARK)) | (gain < DEAD)
    errors[filled] = spread
    figures = Figures(
        hot=int(hot.sum()),
        filled=int(filled.sum()),
        dead=int(dead.sum()),
        dark_rate=float(dark[good].mean()) if dark_is_known else None,
        spread_before=spread,
        spread_after=None,
        error=error,
        uneven=None,
        told=share,
        warnings=tuple(_doubts(gain, good, sure)),
    )
    gain[filled] = 1
    dark[offset >= 1] = 0  # not known
    sensor = Sensor(gain.astype(np.float32), dark.clip(0, 1), hot, dead, filled)
    return sensor, errors.astype(np.float32), figures


def _doubts(gain: Plane, good: Mask, sure: float) -> list[str]:
    """Return what may be wrong with gains of a moving scene, in words."""
    doubts = []
    if sure < 0.5:
        doubts.append(
            "the halves of the recordings hardly agree on gains, so that most are taken as equal: "
            "pixels differ little, or more recordings are needed"
        )
    likeness = neighbours_alike(np.where(good, gain - 1, 0))
    if likeness > 0.3 and gain[good].std() > 0.01:
        doubts.append(
            f"gains of neighbours go together (correlation {likeness:.2f}), which pixels' own do "
            "not: part of the scene may be among them; give recordings of other scenes, too"
        )
    return doubts


def _windows(streams: Sequence[SpikeStream], rates: Floats) -> Halves:
    """Return windows of both halves of each recording, long enough that the scene moves in them.

    Raises:
        CalibrateError: a recording is too short or too dark.
    """
    rate = float(np.median(rates))
    shortest = min(streams, key=lambda stream: stream.n_frames)
    most = shortest.n_frames // 2
    if rate * most < FEWEST_IN_WINDOW or most < BINS:
        raise CalibrateError(
            f"{shortest.path}: expected at least {2 * FEWEST_IN_WINDOW} spikes of the median pixel "
            f"in {2 * BINS} samples or more, found {rate * shortest.n_frames:.1f} in "
            f"{shortest.n_frames}; record longer, or with more light"
        )
    length = max(BINS, math.ceil(IN_WINDOW / rate))
    while True:
        halves = _laid(streams, min(length, most))
        way = _travel(halves, rates)
        if way >= TRAVEL:
            return halves
        if length >= most and way < LEAST_TRAVEL:
            raise CalibrateError(
                f"expected a scene of which points move by {LEAST_TRAVEL:g} pixels or more in "
                f"{most} samples, found {way:.1f} on the mean; move the camera, or record longer"
            )
        if length >= most:
            return halves
        length *= 2


def _laid(streams: Sequence[SpikeStream], length: int) -> Halves:
    """Return windows of a length, half over each other where there is room for no more."""
    each = max(1, WINDOWS // len(streams))
    halves: Halves = ([], [])
    for stream in streams:
        middle = stream.n_frames // 2
        for half, (start, stop) in zip(halves, ((0, middle), (middle, 2 * middle)), strict=True):
            number = min(each, max(1, 2 * (stop - start) // length - 1))
            last = stop - length
            starts = np.linspace(start, last, number) if number > 1 else [(start + last) // 2]
            half += [Window(stream, int(first), int(first) + length) for first in starts]
    return halves


def _travel(halves: Halves, rates: Floats) -> float:
    """Return the mean way of points in some windows, in pixels."""
    shape = rates.shape
    rows, columns = ((max(0, (side - TILE) // 2), min(side, (side + TILE) // 2)) for side in shape)
    every = [window for half in halves for window in half]
    some = every[:: max(1, len(every) // 4)]
    scale = np.float32(BRIGHT / float(rates.mean()))
    return float(np.mean([travel(window.light(rows, columns) * scale) for window in some]))


def _spans_of_slices(streams: Sequence[SpikeStream]) -> list[tuple[SpikeStream, int, int]]:
    """Return the samples [start, stop) of each slice."""
    each = max(2, _SLICES // len(streams))
    parts = []
    for stream in streams:
        for i in range(each):
            start, stop = (stream.n_frames * edge // each for edge in (i, i + 1))
            parts.append((stream, start, min(max(stop, start + 1), start + _IN_SLICE)))
    return parts


def _slices(streams: Sequence[SpikeStream], dark: Plane | None, work: Parts) -> list[Plane]:
    """Return spikes a sample (H, W) without those of the dark, in parts of the recordings."""
    none = np.float32(0)
    slices = []
    for stream, start, stop in _spans_of_slices(streams):
        without = stream.tfp(start, stop) - (none if dark is None else dark)
        slices.append(np.maximum(without, none))
        work.did("slices", f"rates of {stream.path.name}", size=stop - start)
    return slices


def _outliers(slices: Sequence[Plane]) -> tuple[Mask, Mask]:
    """Return pixels (H, W) that are hot, and dead, by what all pixels around them show.

    A thing that stands still is no pixel's: around a bad pixel, light must have changed while the
    pixel departed from it by the same factor, or the same amount. Only what is far brighter than
    all that touches it, but one pixel that may be hot, too, is sharper than lenses are.

    Args:
        slices: spikes a sample (H, W) in parts of the recordings.
    """
    around, second = (np.stack(planes) for planes in zip(*map(_ranked_around, slices), strict=True))
    own = np.stack(slices)
    departs = np.log((own + _FAINT) / (around + _FAINT))
    mean = departs.mean(axis=0)
    by_factor = np.abs(mean) > _CERTAIN * departs.std(axis=0)
    more = own - around
    by_amount = more.mean(axis=0) > _CERTAIN * more.std(axis=0)
    moved = np.log(around + _FAINT).std(axis=0) > _CHANGE
    point = (own > _POINT * (second + _FAINT)).all(axis=0)
    never = (own.max(axis=0) == 0) & (around.mean(axis=0) > 4 * _FAINT)
    hot = point | (moved & (by_factor | by_amount) & (mean > math.log(TOO_BRIGHT)))
    return hot, never | (moved & by_factor & (mean < math.log(DEAD)))


def _ranked_around(rates: Plane) -> tuple[Plane, Plane]:
    """Return the median of the pixels around each, and the second largest of those next to it."""
    side = 2 * _REACH + 1
    padded = np.pad(rates, _REACH, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    others = np.delete(windows.reshape(*rates.shape, -1), side * side // 2, axis=-1)
    touching = np.delete(windows[..., 1:-1, 1:-1].reshape(*rates.shape, -1), 4, axis=-1)
    second = np.partition(touching, -2, axis=-1)[..., -2]
    return np.median(others, axis=-1).astype(np.float32), second


def _tiles(shape: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
    """Cut a sensor into equal tiles."""
    cuts = []
    for side in shape:
        number = -(-side // TILE)
        edges = [side * i // number for i in range(number + 1)]
        cuts.append(list(itertools.pairwise(edges)))
    yield from itertools.product(*cuts)


def _around(span: Span, side: int) -> Span:
    return max(0, span[0] - MARGIN), min(side, span[1] + MARGIN)
