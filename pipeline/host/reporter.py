"""How a job reports its progress, notes and warnings."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

_logger = logging.getLogger(__name__)


class Reporter:
    """A listener to a job. This one hears nothing but warnings, which go to `logging`.

    Subclasses override what they want to hear. Jobs call it from the thread that started them.
    """

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Hear how far the job is, in units of its own work items; `note` names the item."""

    def remaining(self, seconds: float) -> None:
        """Hear how long the rest will take, where the job knows better than its work items tell.

        It comes before the call of `progress` for which it holds.
        """

    def note(self, sentence: str) -> None:
        """Hear what the job decided, and what is good to know."""

    def warn(self, sentence: str) -> None:
        """Hear what may be wrong with the input or the result."""
        _logger.warning("%s", sentence)


SILENT = Reporter()
"""The default of every job."""


class Parts:
    """Progress of a job whose work items consist of parts of several kinds, unequal in time.

    The time left is that of the parts left, each as long as those of its kind have taken so far on
    average. A kind of which none is done yet is taken by its guess.
    """

    def __init__(
        self,
        reporter: Reporter,
        items: int,
        parts: Mapping[str, int],
        guesses: Mapping[str, float],
        done: int = 0,
    ) -> None:
        """Begin, and report it.

        Args:
            reporter: hears of each part.
            items: number of work items.
            parts: number of parts of each kind.
            guesses: time of a part of each kind, in any unit.
            done: items that are done already, and have no parts here.
        """
        self._reporter, self._items, self._done = reporter, items, done
        self._parts, self._guesses = dict(parts), guesses
        self._taken = dict.fromkeys(parts, 0.0)
        self._number = dict.fromkeys(parts, 0)
        self._last = time.monotonic()
        reporter.progress(done, items)

    def did(self, kind: str, note: str = "", *, finished: int = 0) -> None:
        """Take all time since the last part, or the beginning, for that of one part.

        Args:
            kind: the part's kind.
            note: names the part.
            finished: number of items that are done with it.
        """
        now = time.monotonic()
        self._taken[kind] += now - self._last
        self._number[kind] += 1
        self._last = now
        self._done += finished
        self._reporter.remaining(self._left())
        self._reporter.progress(self._done, self._items, note)

    def skip(self, kind: str, number: int) -> None:
        """Leave out parts that turn out to be needless."""
        self._parts[kind] -= number

    def _left(self) -> float:
        """Return the time left in seconds."""
        if self._done >= self._items:
            return 0.0
        measured = [kind for kind, number in self._number.items() if number]
        guessed = sum(self._number[kind] * self._guesses[kind] for kind in measured)
        unit = sum(self._taken[kind] for kind in measured) / guessed if guessed else 0.0
        left = 0.0
        for kind, parts in self._parts.items():
            number = self._number[kind]
            each = self._taken[kind] / number if number else unit * self._guesses[kind]
            left += max(0, parts - number) * each
        return left


class Throughput:
    """Counts the bytes that a job has worked through, and says how many and how fast."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bytes = 0

    def __call__(self, n_bytes: int) -> str:
        """Add `n_bytes`, and return text such as 12.5 MB, 3.1 MB/s."""
        self._bytes += n_bytes
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{self._bytes / 1e6:.1f} MB, {self._bytes / 1e6 / seconds:.1f} MB/s"


def duration(seconds: float) -> str:
    """Return a number of seconds as text: 8.2 s, 4:05 min, 3:20 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"
