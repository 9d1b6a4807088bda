"""A part of a recording, by times on the recording's clock: `--from 30s --to 34s`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .clock import SpikeClock, SpikeWindowError, round_half_up


@dataclass(frozen=True, kw_only=True, slots=True)
class Between:
    """Times [start, end) between which a recording is read, in seconds on its clock.

    Raises:
        SpikeWindowError: the end is not after the start.
    """

    start: float | None = None
    """First instant, in seconds; None: the recording's first."""
    end: float | None = None
    """Instant before which the part ends, in seconds; None: the recording's end."""

    def __post_init__(self) -> None:
        first, end = self.start, self.end
        if not all(t is None or math.isfinite(t) for t in (first, end)):
            raise SpikeWindowError(f"expected finite times, found --from {first} and --to {end}")
        if first is not None and end is not None and first >= end:
            raise SpikeWindowError(
                f"--to: expected a time after --from {first:.9g}s, found {end:.9g}s; exchange "
                "them, or correct one"
            )

    def __str__(self) -> str:
        words = []
        if self.start is not None:
            words.append(f"--from {self.start:.9g}s")
        if self.end is not None:
            words.append(f"--to {self.end:.9g}s")
        return " ".join(words)


def both(one: Between | None, other: Between | None) -> Between | None:
    """Return the part that lies in both; None: all of the recording.

    Args:
        one: times that the user gives.
        other: the part that was aligned.

    Raises:
        SpikeWindowError: they have nothing in common.
    """
    if one is None or other is None:
        return one or other
    starts = [t for t in (one.start, other.start) if t is not None]
    ends = [t for t in (one.end, other.end) if t is not None]
    start, end = max(starts, default=None), min(ends, default=None)
    if start is not None and end is not None and start >= end:
        raise SpikeWindowError(
            f"expected times inside {other}, the part that was aligned, found {one}; give times "
            "inside, or align again"
        )
    return Between(start=start, end=end)


def none_exposed(name: object, part: Between, exposures: Sequence[Between]) -> str:
    """Return what is wrong with a part in which no frame is exposed wholly, and what to type.

    Args:
        name: the recording, or all of them.
        part: the part that was asked for.
        exposures: the shortest part that holds each frame's exposure.
    """
    after = -math.inf if part.start is None else part.start
    starts, ends = ([getattr(each, at) or 0.0 for each in exposures] for at in ("start", "end"))
    near = next((each for each, end in zip(exposures, ends, strict=True) if end > after), None)
    return (
        f"{name}: expected a frame that is exposed wholly in {part}, found none of "
        f"{len(exposures)}, exposed from {min(starts):.9g}s to {max(ends):.9g}s; give --from and "
        f"--to around an exposure, such as {near or exposures[-1]}"
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of one recording, whose clock is known."""

    between: Between
    clock: SpikeClock

    def samples(self, n_samples: int, name: object) -> tuple[int, int]:
        """Return the samples [start, stop) of the part, inside a recording of `n_samples`.

        Raises:
            SpikeWindowError: none is; names the recording and its times.
        """
        start, stop = self._bounds()
        start, stop = max(0, start), min(stop, n_samples)
        if start >= stop:
            first, end = self.clock.first, self.clock.first + n_samples / self.clock.rate
            raise SpikeWindowError(
                f"{name}: expected a part of the recording, which lasts from {first:.9g}s to "
                f"{end:.9g}s, found {self.between}; give --from and --to inside, a sample "
                f"({1 / self.clock.rate:.3g}s) or more apart"
            )
        return start, stop

    def holds(self, t0: float, t1: float) -> bool:
        """Whether all samples of an exposure [t0, t1], in seconds, lie in the part, in all rows."""
        start, stop = self._bounds()
        first, after = self.clock.samples_of_rows(t0, t1)
        return start <= first and after <= stop

    def around(self, t0: float, t1: float) -> Between:
        """Return the shortest part that holds an exposure [t0, t1], in seconds, in all rows."""
        start, end = (
            self.clock.first + sample / self.clock.rate
            for sample in self.clock.samples_of_rows(t0, t1)
        )
        return Between(start=start, end=end)

    def _bounds(self) -> tuple[int, int]:
        clock, start, end = self.clock, self.between.start, self.between.end
        return (
            0 if start is None else round_half_up((start - clock.first) * clock.rate),
            2**62 if end is None else round_half_up((end - clock.first) * clock.rate),
        )
