"""When exposures were, and the ways between the middles of two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...model.paths import Paths

SAME_RATE = 0.02
"""Relative difference of two exposures' spike rates up to which they are told by one clock."""


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

    def may_be_on_the_clock_of(self, other: Span) -> bool:
        """Return whether rates are the same, but for a sample in each by rounding."""
        rounding = sum(1 / (span.length - 1 / span.rate) for span in (self, other))
        return abs(self.rate - other.rate) <= SAME_RATE * other.rate + rounding


class Way(NamedTuple):
    """Windows between the middles of two exposures, as far apart from these as from each other."""

    own: Span
    other: Span
    length: float
    """Length of a window, in seconds."""
    step: float
    """Time from middle to middle, in seconds."""
    windows: int
    """Number of windows."""
