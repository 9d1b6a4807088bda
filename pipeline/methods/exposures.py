"""The exposures of a sequence as `path` sees them, with the motion between neighbours.

A point leaves its exposure by the own path, and goes on by the motion in connecting windows, each
as long as the shorter exposure, up to the neighbour's middle. Exposures without a gap hold the
spikes of such windows, those that overlap need none, and across a gap spikes are read where the
sequence has them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.schema import NormConfig
from ...model.beyond_range import filled
from ...model.corrections import gray
from ...model.inputs import RawWindows, network_inputs
from ...model.instants import moved_to
from ...model.motion_deblur import sharp_along_motion
from ...model.neighbours import Near, Neighbour, Step, motion_in
from ...model.paths import bin_times
from ...model.spike_motion import weights_at
from ..host.allocator import KEPT_BYTES, give_back_freed_memory
from ..sequences.contract import WindowSequence, sensor_of
from ..sequences.grid import resampling_of
from ..sequences.linear_frames import BRIGHTEST, ends_of
from ..spikes.counts import samples_per_bin
from ..spikes.intervals import light_of_spikes
from .contract import Frames
from .exposure import Exposure
from .inputs import InputReader
from .side_by_side import frame_bytes, side_by_side, threads_that_fit
from .spans import Connection, Span, Way

SMALLEST = 8
"""Fewest rows and columns of a frame, in pixels: in fewer, nothing is seen to move."""
LONGEST_GAP = 1.0
"""Longest time between two exposures that are neighbours, in the shorter one's lengths."""
HELPFUL = (0.4, 1.5)
"""Least and greatest length of a neighbour that helps an exposure, in the exposure's own length:
longer ones have more blur, and the way into shorter ones is long."""
NO_GAP = 1 / 8
"""Time between two exposures up to which their own spikes show the motion there, in the shorter
one's lengths."""
NORM = NormConfig(MODE="relative", CORRECT_LAG=True)
"""How `path` sees spikes, without a network that was trained to see them in another way."""

T = TypeVar("T")
_ALWAYS = 0.999  # spikes a sample from which on a pixel fired in every one, but for rounding
_BEYOND = 1 / 16  # of an exposure, by which paths are believed beyond its ends
_BESIDE = 1 / 4  # of an exposure, in which spikes on both sides of a window are read
_AT_ONCE_BYTES = 16 * 2**20  # of unpacked spikes


class Exposures:
    """Reads exposures of a sequence, and finds what moves in them and between them, once each.

    The last few that were asked for are kept, which bounds memory. On a CPU, several sharp frames
    are found side by side, each on one thread, so that they are the same on any number of cores.
    """

    def __init__(
        self,
        windows: WindowSequence,
        norm: NormConfig = NORM,
        *,
        device: str = "cpu",
        kept: int = 1,
        heard: Callable[[str], None] = lambda note: None,
    ) -> None:
        """Prepare for reading.

        Args:
            windows: the sequence.
            norm: how spikes become relative light, and whether their lag is corrected.
            device: a torch device, on which all is computed.
            kept: number of sharp frames that are kept, with their exposures and one on each side.
            heard: called after each sharp frame that is found, with its name.

        Raises:
            MethodError: the sequence's voxels are not raw.
        """
        self.windows = windows
        self._norm = norm
        self.reader = InputReader(windows, norm, device)
        """Reads what the frames were made from."""
        self.gains: dict[int, float] = {}
        """Gain that each window showed that was read, spikes a sample; NaN: no light."""
        self._device = device
        self._heard = heard
        self._expected: Sequence[int] = ()
        self._exposures: _Kept[Exposure] = _Kept(kept + 2, self._read)
        self._connections: _Kept[Connection | None] = _Kept(3, self._connect)
        self._sharp: _Kept[tuple[Tensor, Tensor]] = _Kept(kept, self._restore)

    def keep(self, kept: int) -> None:
        """Keep at least so many sharp frames."""
        self._sharp.most = max(self._sharp.most, kept)
        self._exposures.most = max(self._exposures.most, kept + 2)

    def expect(self, windows: Sequence[int]) -> None:
        """Hear of which windows sharp frames will be asked for, in order: some are found early."""
        self._expected = windows

    def sharp(self, window: int) -> tuple[Tensor, Tensor]:
        """Return a window's frame (1, 3, H, W), and maps; see `sharp_along_motion`."""
        if window not in self._sharp:
            self._find(window)
        return self._sharp[window]

    def _find(self, window: int) -> None:
        """Find a sharp frame, and side by side with it the next ones that are expected."""
        number = threads_that_fit(self.windows.frame_shape) if self._device == "cpu" else 1
        coming = bisect_right(self._expected, window)
        after = self._expected[coming : coming + number - 1]
        found = [window, *(i for i in after if i not in self._sharp)]
        self._sharp.most = max(self._sharp.most, len(found))
        self._exposures.most = max(self._exposures.most, len(found) + 3)
        pairs = [
            (i, other)
            for i in found
            for other in (i - 1, i + 1)
            if 0 <= other < self.windows.length and self._helps(other, i)
        ]
        looked_at = {*found, *(other for _, other in pairs)}
        between = {min(pair) for pair in pairs}
        # Frames apart from each other, as a resumed run has them, share no neighbour.
        self._exposures.most = max(self._exposures.most, len(looked_at))
        self._connections.most = max(self._connections.most, len(between) + 1)
        steps: list[tuple[Callable[[int], object], set[int]]] = [
            (self.exposure, looked_at),
            (self._connections.__getitem__, between),
        ]
        for step, windows in steps:
            list(side_by_side(step, sorted(windows), self._device))
        connected = [pair for pair in pairs if self._connections[min(pair)] is not None]
        moving = {i for pair in connected for i in pair}
        list(side_by_side(lambda i: self.exposure(i).motion, sorted(moving), self._device))
        with closing(side_by_side(self._sharp.__getitem__, found, self._device)) as sharp:
            for i, _ in zip(found, sharp, strict=True):
                note = f"{self.windows.seq}, motion in window {i + 1} of {self.windows.length}"
                self._heard(note)

    def moved(self, window: int, middles: Mapping[int, Frames], time: float) -> Frames:
        """Return a window's frame (H, W, 3) at another instant of its exposure.

        Where a neighbour was exposed then too, or nearly, it is the mean with that one's frame: the
        nearer to its own middle, the more a frame counts.

        Args:
            window: index of the window.
            middles: (H, W, 3), the frames at the middles of the window and of those beside it, as
                far as there are some, whatever method restored them.
            time: the instant, in exposures from the middle; -1/2 to 1/2.
        """
        blur = self.exposure(window).blur

        def middle(i: int) -> tuple[Tensor, None] | None:
            if i not in middles:
                return None
            return torch.from_numpy(middles[i]).to(blur).permute(2, 0, 1)[None], None

        frame: Frames = as_frames(self._moved(window, middle, time)[0])[0]
        return frame

    def at(self, window: int, time: float) -> tuple[Tensor, Tensor]:
        """Return what `sharp` does, at another instant of a window's exposure.

        The frame is `moved` from those that `sharp` finds, and the maps are those of the window.
        """

        def middle(i: int) -> tuple[Tensor, Tensor] | None:
            return self.sharp(i) if 0 <= i < self.windows.length else None

        frame, maps = self._moved(window, middle, time)
        assert maps is not None
        return frame, maps

    def _moved(
        self,
        window: int,
        middle: Callable[[int], tuple[Tensor, Tensor | None] | None],
        time: float,
    ) -> tuple[Tensor, Tensor | None]:
        """Return a window's frame and maps at an instant, from those at the middles of windows."""
        own = self.exposure(window)
        total, weights, kept = torch.zeros_like(own.blur), 0.0, None
        with torch.inference_mode():
            for i, there, weight in self._exposed_at(window, time):
                found = middle(i)
                if found is None:
                    continue
                sharp, maps = found
                exposure = self.exposure(i)
                seen, maps = moved_to(
                    sharp,
                    maps if i == window else None,
                    exposure.blur,
                    exposure.voxels,
                    there,
                    exposure.motion,
                )
                kept = maps if i == window else kept
                total += weight * (seen if i == window else exposure.gain / own.gain * seen)
                weights += weight
            return total / weights, kept

    def _exposed_at(self, window: int, time: float) -> Iterator[tuple[int, float, float]]:
        """Yield the windows exposed at an instant, when that is in each, and how far it counts."""
        yield window, time, _counts(time)
        own = self._span(window)
        for i in (window - 1, window + 1):
            if own is None or not (0 <= i < self.windows.length and self._helps(i, window)):
                continue
            other = self._span(i)
            if other is None or not own.may_be_on_the_clock_of(other):
                continue
            there = (own.middle + time * own.length - other.middle) / other.length
            dark = math.isnan(self.exposure(i).gain) or math.isnan(self.exposure(window).gain)
            if _counts(there) > 0 and not dark:
                yield i, there, _counts(there)

    def exposure(self, window: int) -> Exposure:
        """Return an exposure."""
        return self._exposures[window]

    def near(self, window: int) -> Near | None:
        """Return what is known beside an exposure; None: it has no neighbour."""
        connected = [
            (other, connection)
            for other, first in ((window - 1, window - 1), (window + 1, window))
            if 0 <= other < self.windows.length and self._helps(other, window)
            if (connection := self._connections[first]) is not None
        ]
        if not connected:
            return None
        neighbours = (self._neighbour(window, *each) for each in connected)
        return Near(self.exposure(window).motion, neighbours)

    def _neighbour(self, window: int, other: int, connection: Connection) -> Neighbour:
        own, exposure = self.exposure(window), self.exposure(other)
        between, times = connection.paths, connection.there
        if other < window:
            between, times = between[::-1], connection.back
        steps = map(Step, [own.motion.paths, *between], times)
        blur, light, brightest = exposure.as_beside(own)
        return Neighbour(blur, brightest, light, exposure.motion.paths, tuple(steps))

    def _restore(self, window: int) -> tuple[Tensor, Tensor]:
        own = self.exposure(window)
        if self._device == "cpu" and frame_bytes(self.windows.frame_shape) > KEPT_BYTES:
            give_back_freed_memory()  # which holds holes too small for a large frame's maps
        return sharp_along_motion(own.blur, own.voxels, self.near(window))

    def _read(self, window: int) -> Exposure:
        raw = self.reader.read(window, window + 1)
        conditions = self.reader.measured(window, window + 1, [raw])
        blur, voxels = network_inputs(raw, conditions, self._norm)
        ends = ends_of(self.windows, "uint8" if raw.blur.dtype == torch.uint8 else "uint16")
        sure = min(ends[1], BRIGHTEST["uint8"])
        gain = _gain_of(blur, raw.voxels.float(), int(raw.samples[0]), sure)
        self.gains[window] = gain
        late = 0.0 if conditions is None or conditions.late is None else conditions.late.item()
        rate, saturated = self._rate(raw)
        blur = filled(blur, rate, saturated, ends)
        return Exposure(blur, voxels, gain, round(late) / voxels.shape[1], sure)

    def _rate(self, raw: RawWindows) -> tuple[Tensor, Tensor]:
        """Return spikes a sample over an exposure, and 1 where a pixel fired in every sample.

        Returns:
            (1, 1, h, w) both, in the frame's grid.
        """
        rate = raw.voxels.float().sum(1, keepdim=True) / int(raw.samples[0])
        most: Tensor | float = 1.0
        sensor = sensor_of(self.windows)
        if sensor is not None:
            always = sensor.corrected(np.ones((1, *self.windows.voxel_shape), np.float32), 1)
            resampling = resampling_of(self.windows)
            always = always if resampling is None else resampling.resampled(always)
            most = torch.from_numpy(always).to(rate)
        return rate, (rate >= _ALWAYS * most).to(rate)

    def _span(self, window: int) -> Span | None:
        windows = self.windows
        first, last = float(windows.t0[window]), float(windows.t1[window])
        samples = int(windows.samples[window])
        if samples < 2 or last <= first:
            return None
        rate = (samples - 1) / (last - first)
        return Span((first + last) / 2, samples / rate, rate)

    def _helps(self, other: int, window: int) -> bool:
        """Whether a neighbour's length is one that helps a window."""
        beside, own = self._span(other), self._span(window)
        if beside is None or own is None:
            return False
        shortest, longest = HELPFUL
        return shortest <= beside.length / own.length <= longest

    def _connect(self, first: int) -> Connection | None:
        """Find the way between a window and the next one; None: it can't be known."""
        if any(math.isnan(self.exposure(window).gain) for window in (first, first + 1)):
            return None
        own, other = self._span(first), self._span(first + 1)
        if own is None or other is None or not own.may_be_on_the_clock_of(other):
            return None
        distance = other.middle - own.middle
        shorter = min(own.length, other.length)
        within = (0.5 + _BEYOND) * shorter
        if 0 < distance <= within:
            return Connection((), (distance / own.length,), (-distance / other.length,))
        gap = distance - (own.length + other.length) / 2
        if distance <= within or gap > (LONGEST_GAP + _BEYOND) * shorter:
            return None
        without = gap <= NO_GAP * shorter
        followed = distance - max(0.0, gap) if without else distance
        count = math.ceil(2 * followed / shorter - 2 * _BEYOND)
        way = Way(own, other, shorter, distance / count, count - 1)
        light = self._light_without_gap(first, way) if without else self._light_across(first, way)
        if light is None:
            return None
        paths = [motion_in(window).paths for window in light]
        steps = [way.step / shorter] * len(paths)
        there, back = way.step / own.length, -way.step / other.length
        return Connection(paths, [there, *steps], [back, *(-step for step in steps)])

    def _light_without_gap(self, first: int, way: Way) -> list[Tensor]:
        """Return light in windows of the end of one exposure and the start of the next."""
        own, other, exposure = way.own, way.other, self.exposure(first)
        distance = other.middle - own.middle
        border = ((own.length - other.length) / 2 + distance) / 2
        ends, starts = (
            self.exposure(window).as_beside(exposure)[1] for window in (first, first + 1)
        )
        light = []
        for window in range(way.windows):
            middle = (window + 1) * way.step
            times = [middle + way.length * time for time in bin_times(self.windows.bins)]
            before = [time / own.length for time in times if time < border]
            after = [(time - distance) / other.length for time in times if time >= border]
            light.append(torch.cat([weights_at(ends, before), weights_at(starts, after)], 1))
        return light

    def _light_across(self, first: int, way: Way) -> list[Tensor] | None:
        """Return light in windows of spikes; None: there are none between the exposures."""
        start = way.step - way.length / 2
        stop = way.windows * way.step + way.length / 2
        bins = self.windows.bins
        number = round((stop - start) / way.length * bins)
        light = self._light_after(first, (start / way.own.length, stop / way.own.length), number)
        if light is None:
            return None
        starts = [round(i * way.step / way.length * bins) for i in range(way.windows)]
        return [light[:, start : start + bins] for start in starts]

    def _light_after(self, window: int, times: tuple[float, float], bins: int) -> Tensor | None:
        """Return the light between two times, in exposures since a window's middle.

        Returns:
            (1, bins, h, w), luminance; None: its spikes are not known.
        """
        windows, exposure = self.windows, self.exposure(window)
        if not windows.has_spikes:
            return None
        samples = int(windows.samples[window])
        start = round((0.5 + times[0] + exposure.late) * samples)
        stop = start + round((times[1] - times[0]) * samples)
        beside = stop + int(_BESIDE * samples) - samples
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
        joined = np.concatenate(parts, 1)
        sensor = sensor_of(windows)
        if sensor is not None:
            joined = sensor.corrected(joined, samples_per_bin(stop - start, bins))
        resampling = resampling_of(windows)
        if resampling is not None:
            joined = resampling.resampled(joined)
            joined = joined if sensor is not None else joined.clip(0)
        return torch.from_numpy(joined).to(self._device)[None] / unit


def _counts(time: float) -> float:
    """Return how far a frame counts that was moved to a time, in exposures from the middle."""
    return max(0.0, 0.5 + _BEYOND - abs(time))


def as_frames(restored: Tensor) -> Frames:
    """(T, 3, H, W) -> (T, H, W, 3), in main memory."""
    frames: Frames = restored.permute(0, 2, 3, 1).float().cpu().numpy()
    return frames


def _gain_of(blur: Tensor, light: Tensor, samples: int, brightest: float) -> float:
    """Return the gain, spikes a sample at unit luminance, as what is not clipped shows it.

    Args:
        blur: (1, 3, H, W).
        light: (1, K, h, w), in spikes.
        samples: spike samples of the exposure.
        brightest: value of the frame from which on it may be clipped.

    Returns:
        The gain; NaN where there is no light.
    """
    scale = blur.shape[-1] // light.shape[-1]
    whole = F.max_pool2d(blur.amax(1, keepdim=True), scale) < brightest
    seen = (F.avg_pool2d(gray(blur), scale) * whole).sum().item()
    spikes = (light.sum(1, keepdim=True) * whole).sum().item()
    return spikes / samples / seen if seen > 0 and spikes > 0 else math.nan


class _Kept(OrderedDict[int, T]):
    """What is found of the last few windows."""

    def __init__(self, most: int, find: Callable[[int], T]) -> None:
        super().__init__()
        self.most = most
        self._find = find

    def __missing__(self, window: int) -> T:
        found = self._find(window)
        self[window] = found
        if len(self) > self.most:
            self.popitem(last=False)
        return found
