"""Spike samples on the time axis, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import SpikeDeblurError
from .bounds import MOST_HZ, MOST_SECONDS

_MAX_SAMPLES = 2.0**53
"""Most samples from the first: beyond, float64 can't tell one sample from the next."""


class SpikeWindowError(SpikeDeblurError):
    """A time window does not fit the recording, or the bins it should fill."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeClock:
    """When each spike sample was taken: sample j at `first + j / rate`."""

    rate: float
    """Spike samples a second, in Hz."""
    first: float = 0.0
    """Time of sample 0, in seconds."""
    readout: float = 0.0
    """Time from the exposure of a frame's first row to that of its last one, in seconds; less than
    0: the last row comes first. Times are those of the first row."""

    def __post_init__(self) -> None:
        if not (1 / MOST_SECONDS <= self.rate <= MOST_HZ and abs(self.first) <= MOST_SECONDS):
            raise SpikeWindowError(
                f"expected a rate above 0 and at most {MOST_HZ:g} Hz, and a first time within "
                f"{MOST_SECONDS:g} s, got rate {self.rate} and first {self.first}; check the clock"
            )
        if not abs(self.readout) * self.rate < _MAX_SAMPLES:
            raise SpikeWindowError(
                f"--readout: expected the time from a frame's first row to its last one, found "
                f"{self.readout:g} s; type it with its unit, such as --readout 20ms"
            )

    def samples(self, t0: float, t1: float) -> tuple[int, int]:
        """Return (start, stop) of the samples in the closed window [t0, t1], in seconds.

        Both ends belong to the window: `round((t0 - first) rate) <= j <= round((t1 - first) rate)`.
        The range is not clipped; `require_inside` checks it against a recording.

        Raises:
            SpikeWindowError: no recording is that long, or a time is not finite.
        """
        if not all(abs(t - self.first) * self.rate < _MAX_SAMPLES for t in (t0, t1)):
            raise SpikeWindowError(
                f"expected an exposure within {_MAX_SAMPLES:g} samples of the recording's first, "
                f"found {t0:g} to {t1:g} s at {self.rate:g} Hz from {self.first:g} s; check rate, "
                "fps and the first sample's time"
            )
        # Half up, so that windows of one length always hold the same number of samples.
        start = round_half_up((t0 - self.first) * self.rate)
        last = round_half_up((t1 - self.first) * self.rate)
        return start, last + 1

    def samples_of_rows(self, t0: float, t1: float) -> tuple[int, int]:
        """Return `samples` of the first to the last row together."""
        start, stop = self.samples(t0, t1)
        last_row = round_half_up(self.readout * self.rate)
        return start + min(0, last_row), stop + max(0, last_row)

    def require_inside(
        self,
        t0: float,
        t1: float,
        n_samples: int,
        name: str,
        remedy: str = "check rate, fps and the first sample's time",
    ) -> tuple[int, int]:
        """Return `samples(t0, t1)`, refusing a window of which a row leaves the recording.

        Args:
            t0: start of the exposure, in seconds.
            t1: its end, in seconds.
            n_samples: spike samples in the recording.
            name: the recording, for the message.
            remedy: what to do, in the imperative, for the message.

        Raises:
            SpikeWindowError: a sample of the window is not in the recording.
        """
        start, stop = self.samples(t0, t1)
        first, after = self.samples_of_rows(t0, t1)
        if not (first >= 0 and start < stop and after <= n_samples):
            end = self.first + (n_samples - 1) / self.rate
            rows = f" in all rows, read out in {self.readout:g} s," if self.readout else ""
            remedy += ", or --readout" if self.readout else ""
            raise SpikeWindowError(
                f"{name}: exposure [{t0:.6f}, {t1:.6f}] s needs{rows} spike samples "
                f"{first} to {after - 1}, but the recording has 0 to {n_samples - 1} "
                f"([{self.first:.6f}, {end:.6f}] s at {self.rate:g} Hz); {remedy}"
            )
        return start, stop


def round_half_up(samples: float) -> int:
    """Return the nearest whole number; of two, the larger."""
    return math.floor(samples + 0.5)
