"""The exposures of a sequence as `path` sees them, with the motion between neighbours.

A point leaves its exposure by the own path, and goes on by the motion in connecting windows, each
as long as an exposure, up to the neighbour's middle. Exposures without a gap hold the spikes
of such a window, those that overlap need none, and across a gap spikes are read where the sequence
has them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.schema import NormConfig
from ...model.corrections import gray
from ...model.inputs import network_inputs
from ...model.motion_deblur import sharp_along_motion
from ...model.neighbours import Motion, Near, Neighbour, Step, light_in, motion_in
from ...model.paths import Paths, bin_times
from ...model.spike_motion import weights_at
from ..sequences.contract import WindowSequence
from ..spikes.intervals import light_of_spikes
from .inputs import InputReader

SMALLEST = 8
"""Fewest rows and columns of a frame, in pixels: in fewer, nothing is seen to move."""
LONGEST_GAP = 1.0
"""Longest time between two exposures that are neighbours, in exposures."""
NO_GAP = 1 / 8
"""Time between two exposures, in exposures, up to which their own spikes show the motion there."""
BRIGHTEST = 253.5 / 255
"""Value of a frame from which on it may be clipped."""
SAME_RATE = 0.02
"""Relative difference of two exposures' spike rates up to which they are told by one clock."""

T = TypeVar("T")
_NORM = NormConfig(MODE="relative", CORRECT_LAG=True)
_BEYOND = 1 / 16  # of an exposure, by which paths are believed beyond its ends
_BESIDE = 1 / 4  # of an exposure, in which spikes on both sides of a window are read
_AT_ONCE_BYTES = 16 * 2**20  # of unpacked spikes


class Exposure:
    """One exposure: frames and spikes of the same field, and how it moves."""

    def __init__(self, blur: Tensor, voxels: Tensor, gain: float, late: float) -> None:
        self.blur = blur
        """(1, 3, H, W)."""
        self.voxels = voxels
        """(1, K, h, w), relative; H / h = W / w, a whole number."""
        self.gain = gain
        """Spikes a sample at unit luminance, as this blurred frame shows it; NaN: it is dark."""
        self.late = late
        """Time by which its spikes came late, as a share of the exposure."""

    @cached_property
    def motion(self) -> Motion:
        """How its light moves."""
        return motion_in(light_in(self.blur, self.voxels))

    def as_beside(self, other: Exposure) -> tuple[Tensor, Tensor, float]:
        """Return the exposure as bright as if exposed like another one.

        Spikes tell by how much: their camera exposes all alike.

        Returns:
            (1, 3, H, W), the blurred frame; (1, K, h, w), the luminance in each bin; and the most
            that the camera shows of it.
        """
        brightness = self.gain / other.gain
        blur = self.blur * brightness
        return blur, light_in(blur, self.voxels), brightness * BRIGHTEST


class Connection(NamedTuple):
    """The way from the middle of an exposure to that of the next one, and back."""

    paths: Sequence[Paths]
    """Paths in windows between both, in order of time."""
    there: Sequence[float]
    """How long the way follows the first exposure, and each window, as shares of them."""
    back: Sequence[float]
    """The same from the next exposure on, less than 0."""


class Span(NamedTuple):
    """When an exposure was, in seconds."""

    middle: float
    length: float
    rate: float
    """Spike samples a second."""


class Exposures:
    """Reads exposures of a sequence, and finds what moves in them and between them, once each.

    The last few that were asked for are kept, which bounds memory.
    """

    def __init__(self, windows: WindowSequence, device: str = "cpu", kept: int = 1) -> None:
        """Prepare for reading.

        Args:
            windows: the sequence.
            device: a torch device, on which all is computed.
            kept: number of sharp frames that are kept.

        Raises:
            MethodError: the sequence's voxels are not raw.
        """
        self.windows = windows
        self._reader = InputReader(windows, _NORM, device)
        self._device = device
        self._exposures: _Kept[Exposure] = _Kept(3, self._read)  # a window's and its neighbours'
        self._connections: _Kept[Connection | None] = _Kept(3, self._connect)
        self._sharp: _Kept[tuple[Tensor, Tensor]] = _Kept(kept, self._restore)

    def sharp(self, window: int) -> tuple[Tensor, Tensor]:
        """Return a window's frame (1, 3, H, W), and maps; see `sharp_along_motion`."""
        return self._sharp[window]

    def exposure(self, window: int) -> Exposure:
        """Return an exposure."""
        return self._exposures[window]

    def near(self, window: int) -> Near | None:
        """Return what is known beside an exposure; None: it has no neighbour."""
        own = self.exposure(window)
        neighbours = []
        for other, first in ((window - 1, window - 1), (window + 1, window)):
            if not 0 <= other < self.windows.length:
                continue
            connection = self._connections[first]
            if connection is None:
                continue
            between, times = connection.paths, connection.there
            if other < window:
                between, times = between[::-1], connection.back
            steps = map(Step, [own.motion.paths, *between], times)
            exposure = self.exposure(other)
            blur, light, brightest = exposure.as_beside(own)
            paths = exposure.motion.paths
            neighbours.append(Neighbour(blur, brightest, light, paths, tuple(steps)))
        return Near(own.motion, neighbours) if neighbours else None

    def _restore(self, window: int) -> tuple[Tensor, Tensor]:
        own = self.exposure(window)
        return sharp_along_motion(own.blur, own.voxels, self.near(window))

    def _read(self, window: int) -> Exposure:
        raw = self._reader.read(window, window + 1)
        conditions = self._reader.measured(window, window + 1, [raw])
        blur, voxels = network_inputs(raw, conditions, _NORM)
        gain = _gain_of(blur, self._fitted(raw.voxels.float()), int(raw.samples[0]))
        late = 0.0 if conditions is None or conditions.late is None else conditions.late.item()
        return Exposure(blur, self._fitted(voxels), gain, round(late) / voxels.shape[1])

    def _fitted(self, light: Tensor) -> Tensor:
        """Return light (1, K, h, w) at a size of which the frames' is a multiple."""
        height, width = self.windows.frame_shape
        times = max(1, round(height / light.shape[-2]))
        scale = times if height % times == 0 and width % times == 0 else 1
        size = (height // scale, width // scale)
        if tuple(light.shape[-2:]) == size:
            return light
        return F.interpolate(light, size, mode="bilinear")

    def _span(self, window: int) -> Span | None:
        windows = self.windows
        first, last = float(windows.t0[window]), float(windows.t1[window])
        samples = int(windows.samples[window])
        if samples < 2 or last <= first:
            return None
        rate = (samples - 1) / (last - first)
        return Span((first + last) / 2, samples / rate, rate)

    def _connect(self, first: int) -> Connection | None:
        """Find the way between a window and the next one; None: it can't be known."""
        if any(math.isnan(self.exposure(window).gain) for window in (first, first + 1)):
            return None
        own, other = self._span(first), self._span(first + 1)
        if own is None or other is None or abs(own.rate / other.rate - 1) > SAME_RATE:
            return None
        distance = other.middle - own.middle
        within = (0.5 + _BEYOND) * min(own.length, other.length)
        if 0 < distance <= within:
            return Connection((), (distance / own.length,), (-distance / other.length,))
        gap = distance - (own.length + other.length) / 2
        shorter = min(own.length, other.length)
        if distance <= within or gap > (LONGEST_GAP + _BEYOND) * shorter:
            return None
        if gap <= NO_GAP * shorter:
            return self._without_gap(first, own, other)
        return self._across_gap(first, own, other)

    def _without_gap(self, first: int, own: Span, other: Span) -> Connection:
        """Connect by a window of the end of one exposure and the start of the next."""
        border = (own.middle + own.length / 2 + other.middle - other.length / 2) / 2
        after, before = (border - own.middle) / own.length, (border - other.middle) / other.length
        times = bin_times(self.windows.bins)
        half = len(times) // 2
        exposure = self.exposure(first)
        ends, starts = (
            self.exposure(window).as_beside(exposure)[1] for window in (first, first + 1)
        )
        ends = weights_at(ends, [after + time for time in times[:half]])
        starts = weights_at(starts, [before + time for time in times[half:]])
        light = torch.cat([ends, starts], 1)
        return Connection((motion_in(light).paths,), (after, -before), (before, -after))

    def _across_gap(self, first: int, own: Span, other: Span) -> Connection | None:
        """Connect by windows of spikes, as long as the first exposure, half as far apart."""
        distance = (other.middle - own.middle) / own.length
        count = math.ceil(2 * distance - 2 * _BEYOND)
        step = distance / count
        light = self._light_after(first, (step - 0.5, distance - step + 0.5))
        if light is None:
            return None
        bins = self.windows.bins
        starts = [round(i * step * bins) for i in range(count - 1)]
        paths = [motion_in(light[:, start : start + bins]).paths for start in starts]
        back = -step * own.length / other.length
        return Connection(paths, [step] * count, [back, *[-step] * (count - 1)])

    def _light_after(self, window: int, times: tuple[float, float]) -> Tensor | None:
        """Return the light between two times, in exposures since a window's middle.

        Returns:
            (1, as many bins as the exposure has in that time, h, w), luminance; None: its spikes
            are not known.
        """
        windows, exposure = self.windows, self.exposure(window)
        if not windows.has_spikes:
            return None
        samples = int(windows.samples[window])
        start = round((0.5 + times[0] + exposure.late) * samples)
        stop = start + round((times[1] - times[0]) * samples)
        beside = stop + int(_BESIDE * samples) - samples
        bins = round((times[1] - times[0]) * windows.bins)
        height, width = windows.voxel_shape
        rows = max(1, _AT_ONCE_BYTES // ((samples + 2 * beside) * width))
        parts = []
        for top in range(0, height, rows):
            spikes, before = windows.spikes_beside(window, beside, (top, min(top + rows, height)))
            if len(spikes) < before + stop:
                return None
            read = spikes[max(0, before + start - int(_BESIDE * samples)) :]
            skipped = len(spikes) - len(read)
            light = light_of_spikes(read, bins, before + start - skipped, stop - start)
            parts.append(light.astype(np.float32))
        unit = exposure.gain * (stop - start) / bins
        whole = torch.from_numpy(np.concatenate(parts, 1)).to(self._device)
        return self._fitted(whole[None] / unit)


def _gain_of(blur: Tensor, light: Tensor, samples: int) -> float:
    """Return the gain, spikes a sample at unit luminance, as what is not clipped shows it.

    Args:
        blur: (1, 3, H, W).
        light: (1, K, h, w), in spikes.
        samples: spike samples of the exposure.

    Returns:
        The gain; NaN where there is no light.
    """
    scale = blur.shape[-1] // light.shape[-1]
    whole = F.max_pool2d(blur.amax(1, keepdim=True), scale) < BRIGHTEST
    seen = (F.avg_pool2d(gray(blur), scale) * whole).sum().item()
    spikes = (light.sum(1, keepdim=True) * whole).sum().item()
    return spikes / samples / seen if seen > 0 and spikes > 0 else math.nan


class _Kept(OrderedDict[int, T]):
    """What is found of the last few windows."""

    def __init__(self, most: int, find: Callable[[int], T]) -> None:
        super().__init__()
        self._most = most
        self._find = find

    def __missing__(self, window: int) -> T:
        found = self._find(window)
        self[window] = found
        if len(self) > self._most:
            self.popitem(last=False)
        return found
