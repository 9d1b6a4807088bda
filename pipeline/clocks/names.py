"""Frames in the order of their names, and the numbers that count them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from ..host.reporter import counted

_DIGITS = re.compile(r"([0-9]+)")


def natural_order(names: Iterable[str]) -> list[str]:
    """Return names in the order in which people count: IMG_2 before IMG_10."""
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    parts = _DIGITS.split(name)
    texts, numbers = parts[::2], [*parts[1::2], "0"]
    return [(t.lower(), int(n)) for t, n in zip(texts, numbers, strict=True)], name


def same_number(one: str, other: str) -> bool:
    """Whether two names are one frame's: they differ in leading zeros, or their ending, only."""
    stems = (name.rpartition(".")[0] or name for name in (one, other))
    first, second = (_natural(stem)[0] for stem in stems)
    return first == second


def numbers_in(names: Sequence[str]) -> list[int] | None:
    """Return the last number in each name without ending, if nothing else tells them apart.

    None: names differ in more than that, or the numbers do not ascend.
    """
    numbers, others = [], set()
    for name in names:
        parts = _DIGITS.split(name.rpartition(".")[0] or name)
        if len(parts) < 3 or len(parts[-2]) > 24:
            return None
        numbers.append(int(parts[-2]))
        others.add((*parts[:-2], parts[-1]))
    ascending = all(a < b for a, b in itertools.pairwise(numbers))
    return numbers if len(others) == 1 and ascending else None


def gaps_in(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of neighbours whose numbers are at least one and a half usual steps apart."""
    numbers = numbers_in(names)
    return [] if numbers is None else gaps_between(names, numbers)


def gaps_between(names: Sequence[str], numbers: Sequence[int]) -> list[tuple[str, str]]:
    """Return pairs of neighbours, as `gaps_in`, of frames whose numbers are known and ascend."""
    if len(numbers) < 3:
        return []
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    usual = sorted(steps)[(len(steps) - 1) // 2]
    pairs = zip(itertools.pairwise(names), steps, strict=True)
    return [pair for pair, step in pairs if step >= 1.5 * usual]


def describe_gaps(gaps: Sequence[tuple[str, str]]) -> str:
    """Return words about gaps, at least one, in the numbers of frames."""
    (before, after), *others = gaps
    more = f", and so in {counted(len(others), 'more place')}" if others else ""
    return f"after {before} comes {after}{more}; the frames between them are missing"


def two_kinds_in(names: Sequence[str]) -> tuple[str, str] | None:
    """Return two names that differ in more than the numbers in them; None: there are none."""
    kinds: dict[tuple[str, ...], str] = {}
    for name in names:
        texts = _DIGITS.split((name.rpartition(".")[0] or name).lower())[::2]
        kinds.setdefault(tuple(texts), name)
    first, second, *_ = (*kinds.values(), None, None)
    return None if first is None or second is None else (first, second)
