"""Frames matched with trigger edges that differ from them in number, by the gaps of both.

A camera whose host drops a frame leaves a gap in the frames' numbers or stamps; a log that misses
an edge has a gap in time. A match is certain if it is the only one that fits all gaps.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

from .durations import UNITS

_JITTER = 0.15
"""Largest difference of a gap from a whole number of periods, in periods."""

_SHOWN = 4
"""Most places that a message names."""

Match = tuple[float, ...]
"""Place of each frame in the list of edges; between two of them where an edge is missing."""


class UncertainMatchError(Exception):
    """No match fits, or several do; the message says where."""


def on_grid(values: Sequence[float]) -> list[int] | None:
    """Return how many periods each value lies after the first; None: gaps are irregular."""
    gaps = [b - a for a, b in itertools.pairwise(values)]
    if not gaps:
        return [0]
    period = min(gaps)
    if period <= 0:
        return None
    # The smallest gap has jitter; the mean of all, in its periods, hardly any.
    period = sum(gaps) / sum(round(gap / period) for gap in gaps)
    steps = [round(gap / period) for gap in gaps]
    fits = all(abs(g / period - s) <= _JITTER and s > 0 for g, s in zip(gaps, steps, strict=True))
    return [0, *itertools.accumulate(steps)] if fits else None


def match_edges(
    edges: Sequence[float],
    names: Sequence[str],
    lines: Sequence[int],
    numbers: Sequence[int] | None,
    stamps: Sequence[float] | None,
) -> Match:
    """Return the place of each frame in a list of edges.

    Args:
        edges: times of the edges, ascending, in seconds.
        names: names of the frames, in order of time.
        lines: line of each edge in its file, for messages.
        numbers: numbers that count the frames, or stamps in a unit that is not known; or None.
        stamps: times of the frames on a clock of their own, in seconds; or None.

    Raises:
        UncertainMatchError: no match fits, or several; names frames and lines.
    """
    known = stamps if stamps is not None else numbers
    in_order = tuple(float(i) for i in range(len(names)))
    grid, places = on_grid(edges), None if known is None else on_grid(known)
    same_number = len(edges) == len(names)
    if same_number and (places is None or places == grid or places[-1] == len(names) - 1):
        return in_order
    if known is None:
        raise UncertainMatchError(
            "and nothing in the frames' names counts them, so that it is not known which have none"
        )
    matches = []
    if grid is not None and places is not None:
        matches += _on_one_grid(grid, places)
    if stamps is None and places is not None:
        # Numbers may count the edges, whatever the time between these.
        matches += [
            tuple(float(place + c) for place in places) for c in range(len(edges) - places[-1])
        ]
    if grid is None or places is None:
        units = [1.0] if stamps is not None else [float(unit) for unit in UNITS.values()]
        for unit in units:
            matches += _by_time(edges, known, unit)
    if not matches and grid is not None and places is not None:
        matches = _with_missing_edges(grid, places)
    matches = list(dict.fromkeys(matches))
    if len(matches) == 1:
        return matches[0]
    raise UncertainMatchError(_where(matches, names, lines, grid, places))


def _on_one_grid(grid: Sequence[int], places: Sequence[int]) -> list[Match]:
    at = {period: float(i) for i, period in enumerate(grid)}
    shifts = range(grid[-1] - places[-1] + 1)
    return [
        tuple(at[place + shift] for place in places)
        for shift in shifts
        if all(place + shift in at for place in places)
    ]


def _with_missing_edges(grid: Sequence[int], places: Sequence[int]) -> list[Match]:
    return [
        tuple(_between(grid, place + shift) for place in places)
        for shift in range(grid[-1] - places[-1] + 1)
    ]


def _between(grid: Sequence[int], period: int) -> float:
    i = bisect.bisect_left(grid, period)
    if grid[i] == period:
        return float(i)
    return i - 1 + (period - grid[i - 1]) / (grid[i] - grid[i - 1])


def _by_time(edges: Sequence[float], stamps: Sequence[float], unit: float) -> list[Match]:
    """Return matches of which each frame's gap to the one before is that of two edges."""
    near = _JITTER * min((b - a for a, b in itertools.pairwise(edges)), default=0.0)
    matches = []
    for first in range(len(edges)):
        match = [first]
        for a, b in itertools.pairwise(stamps):
            due = edges[match[-1]] + (b - a) * unit
            i = bisect.bisect_left(edges, due)
            nearest = min(
                (j for j in (i - 1, i) if match[-1] < j < len(edges)),
                key=lambda j: abs(edges[j] - due),
                default=None,
            )
            if nearest is None or abs(edges[nearest] - due) > near:
                break
            match.append(nearest)
        if len(match) == len(stamps):
            matches.append(tuple(map(float, match)))
    return matches


def _where(
    matches: Sequence[Match],
    names: Sequence[str],
    lines: Sequence[int],
    grid: Sequence[int] | None,
    places: Sequence[int] | None,
) -> str:
    if matches:
        unclear = next(i for i in range(len(names)) if len({match[i] for match in matches}) > 1)
        fitting = sorted({match[unclear] for match in matches})
        shown = ", ".join(str(lines[round(place)]) for place in fitting[:_SHOWN])
        more = ", ..." if len(fitting) > _SHOWN else ""
        return (
            f"and {names[unclear]} fits {len(fitting)} of them (lines {shown}{more}) equally well"
        )
    if grid is None or places is None:
        return "and no edges are as far apart as the frames' numbers or stamps say"
    if places[-1] > grid[-1]:
        last = next(i for i, place in enumerate(places) if place > grid[-1])
        return (
            f"and the frames last longer than the edges do: if {names[0]} belongs to line "
            f"{lines[0]}, there is none for {names[last]} and what follows"
        )
    misfits = [names[i] for i, place in enumerate(places) if place not in set(grid)]
    return f"and there is none for {', '.join(misfits[:_SHOWN])}, if {names[0]} has line {lines[0]}"
