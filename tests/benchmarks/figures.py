"""What `make bench` prints: figures beside their bars, and how times are taken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    what: str
    value: float
    unit: str
    bar: float | None = None
    """What must be reached; None: for information."""
    detail: str = ""
    at_most: bool = False
    """True: the bar is the largest value that passes; False: the least."""

    @property
    def passed(self) -> bool:
        if self.bar is None:
            return True
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def line(self, digits: int | None = None) -> str:
        """Return the figure beside its bar; `digits` after the point, None: one or two."""
        verdict = ""
        if self.bar is not None:
            verdict = f"bar {self.bar:g}: {'ok' if self.passed else 'BELOW'}"
        if digits is None:
            digits = 2 if abs(self.value) < 2 else 1
        value = f"{self.value:.{digits}f}"
        return f"{self.what:56} {value:>8} {self.unit:38} {verdict:14} {self.detail}"


def fastest(
    actions: dict[str, Callable[[], object]], repeats: int, in_a_row: int = 1
) -> dict[str, float]:
    """Return each action's least CPU time in seconds; they take turns, `in_a_row` times each.

    Turns, so that a machine that slows down for a while slows all of them; several in a row,
    where an action would otherwise be timed with the caches that another one left.
    """
    times = {name: float("inf") for name in actions}
    for action in actions.values():
        action()
    for _ in range(repeats):
        for name, action in actions.items():
            for _ in range(in_a_row):
                began = time.process_time()
                action()
                times[name] = min(times[name], time.process_time() - began)
    return times


def resident(pid: int) -> int:
    """Return the bytes that a process holds in memory; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
