"""How often each pixel fires in a recording of a constant scene.

An integrate-and-fire pixel under constant light fires evenly. Its number of spikes is wrong by up
to one, whatever the light: with n spikes, by 1 / n. From the first spike to the last it goes
through n - 1 whole intervals, and that time is known to a sample. So the rate is the intervals over
the time between them, kept within one spike of the number. Random spikes beside, or a lamp that
flickers, do the estimate no harm: it is the number of spikes then, to within one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..host.reporter import Parts
from ..spikes.counts import MOST_IN_BIN
from ..spikes.stream import SpikeStream

_AT_ONCE_BYTES = 1 << 23
"""Bytes of unpacked spikes that are looked at together."""
_COUNTS = 16
"""Parts in which a long recording is counted."""


@dataclass(frozen=True, slots=True)
class Fired:
    """What each pixel of a window of samples did; arrays are (H, W), of -1 where it did not."""

    samples: int
    number: npt.NDArray[np.int64]
    """Number of spikes."""
    first: npt.NDArray[np.int64]
    """Sample of the first spike, counted from the recording's first."""
    last: npt.NDArray[np.int64]
    """Sample of the last spike."""

    def then(self, later: Fired) -> Fired:
        """Return what the pixels did in this window and the one that follows."""
        return Fired(
            self.samples + later.samples,
            self.number + later.number,
            np.where(self.number > 0, self.first, later.first),
            np.where(later.number > 0, later.last, self.last),
        )

    def rate(self) -> npt.NDArray[np.float64]:
        """Return (H, W) spikes a sample."""
        counted = self.number / self.samples
        between = (self.number - 1) / np.maximum(self.last - self.first, 1)
        likely = np.clip(between, counted - 1 / self.samples, counted + 1 / self.samples)
        return np.where(self.number > 1, likely, counted)


def watch(stream: SpikeStream, start: int, stop: int, work: Parts) -> Fired:
    """Return what each pixel does in samples [start, stop) of a stream.

    Args:
        stream: the recording.
        start: first sample.
        stop: one past the last sample.
        work: hears of samples in which spikes are `counted`, and of those `searched` twice, for
            first and last spikes.
    """
    pixels = stream.geometry.pixels
    at_once = max(1, _AT_ONCE_BYTES // pixels)
    blocks = [(first, min(first + at_once, stop)) for first in range(start, stop, at_once)]
    number = np.zeros(stream.geometry.shape, np.int64)
    step = min(MOST_IN_BIN, max(at_once, -(-(stop - start) // _COUNTS)))
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        number += stream.counts(1, begin, end)[0]
        work.did("counted", f"counting spikes of {stream.path.name}", size=end - begin)
    first, last = (np.full(number.shape, -1, np.int64) for _ in range(2))
    for order, found in ((1, first), (-1, last)):
        left = stop - start
        for begin, end in blocks[::order]:
            # A pixel that never fires is not waited for.
            missing = (found < 0) & (number > 0)
            if not missing.any():
                break
            spikes = stream.read(begin, end)
            y, x = np.nonzero(missing & spikes.any(axis=0))
            seen = spikes[::order, y, x].argmax(axis=0)
            found[y, x] = begin + seen if order == 1 else end - 1 - seen
            left -= end - begin
            work.did("searched", f"searching {stream.path.name}", size=end - begin)
        work.skip({"searched": left})
    return Fired(stop - start, number, first, last)
