"""Durations and instants as people write them: 0.25, 0.25s, 16ms, 1/60, 250us, 40ns."""

from __future__ import annotations

import re
from fractions import Fraction

from ...errors import SpikeDeblurError
from ..spikes.bounds import MOST_SECONDS

UNITS = {
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}
"""Seconds of each unit."""

# Few digits, so that no text makes a number that takes long to compute with.
_NUMBER = r"[+-]?(?:[0-9]{1,24}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})(?:e[+-]?[0-9]{1,2})?"
_DURATION = re.compile(rf"\s*({_NUMBER})(?:/([1-9][0-9]{{0,8}}))?\s*([a-zµμ]*)\s*", re.IGNORECASE)


class TimelineError(SpikeDeblurError):
    """An exposure, a frame rate or a table of times from which no window can be made."""


def parse_duration(text: str | float, what: str = "a duration") -> float:
    """Return a duration in seconds; a bare number is in seconds.

    Args:
        text: a number, or text such as `16ms`, `1/60` or `0.25 s`.
        what: what it is, for the message.

    Raises:
        TimelineError: no number, or another unit than s, ms, us or ns.
    """
    return float(exact_duration(str(text), what))


def parse_instant(text: str, what: str) -> float:
    """Return an instant in seconds; its unit must be written, so that no number is a sample's.

    Raises:
        TimelineError: no number, no unit, or another than s, ms, us or ns.
    """
    seconds = parse_duration(text, what)
    number = text.strip()
    if number[-1:] not in ("s", "S"):
        raise TimelineError(
            f"{what}: expected a time with its unit, found {number[:40]!r}; type {what} "
            f"{number[:40]}s for seconds, or {number[:40]}ms"
        )
    return seconds


def exact_duration(text: str, what: str, unit: str = "s") -> Fraction:
    """Return a duration in seconds without rounding; a bare number is in `unit`.

    Raises:
        TimelineError: as `parse_duration`.
    """
    match = _DURATION.fullmatch(text)
    written = match[3].lower().replace("µ", "u").replace("μ", "u") if match else ""
    if match is None or written not in ("", *UNITS):
        raise TimelineError(
            f"{what}: expected a number with a unit, s, ms, us or ns, found {text[:40]!r}; write "
            "for example 16ms or 0.016"
        )
    seconds = Fraction(match[1]) / int(match[2] or 1) * UNITS[written or unit]
    if abs(seconds) > MOST_SECONDS:
        raise TimelineError(
            f"{what}: expected at most {MOST_SECONDS:g} s, found {text[:40]!r}; check the unit"
        )
    return seconds


def describe_duration(seconds: float) -> str:
    """Return a duration as people write it, in the unit in which it is at least 1."""
    for unit, size in UNITS.items():
        if abs(seconds) >= size:
            return f"{seconds / float(size):.6g} {unit}"
    return f"{seconds:g} s"
