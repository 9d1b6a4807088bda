"""How a job reports its progress, notes and warnings."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping, Sequence

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

    def kept(self, items: int) -> None:
        """Hear how many more work items a former run has done.

        It comes before the call of `progress` that counts them.
        """

    def counts(self, unit: str) -> None:
        """Hear what the coming work items are, such as windows."""

    def note(self, sentence: str) -> None:
        """Hear what the job decided, and what is good to know."""

    def warn(self, sentence: str) -> None:
        """Hear what may be wrong with the input or the result."""
        _logger.warning("%s", sentence)


SILENT = Reporter()
"""The default of every job."""


_ROUNDING = 1e-6
"""Share of a part below which what is left of its kind is none."""


class Parts:
    """Progress of a job whose work items consist of parts of several kinds, unequal in time.

    The time left is that of the parts left, each as long as those of its kind have taken so far on
    average; parts of unequal size are counted by their size. A kind of which none is done yet is
    taken by its guess. The first part of a kind may load what others use, so it does not count once
    they are faster.
    """

    def __init__(self, reporter: Reporter, items: int, guesses: Mapping[str, float]) -> None:
        """Begin, and report the number of items.

        Args:
            reporter: hears of each part.
            items: number of work items.
            guesses: time of a part of each kind, in any unit; 0: not known.
        """
        self._reporter, self._items, self._done = reporter, items, 0
        self._guesses = guesses
        self._taken = dict.fromkeys(guesses, 0.0)
        self._number = dict.fromkeys(guesses, 0.0)
        self._left = dict.fromkeys(guesses, 0.0)
        self._first: dict[str, tuple[float, float]] = {}
        """Time and size of the first part of each kind."""
        self._last = time.monotonic()
        reporter.progress(0, items)

    def expect(self, parts: Mapping[str, float], done: int = 0) -> None:
        """Take these for all parts that are left, of each kind; `done` items have none."""
        self._left = dict.fromkeys(self._guesses, 0.0) | dict(parts)
        self._done += done
        if done:
            self._reporter.kept(done)

    def skip(self, parts: Mapping[str, float], note: str = "", *, items: int = 0) -> None:
        """Take parts off those that are left, and count their items: they need not be done."""
        for kind, number in parts.items():
            self._take_off(kind, number)
        if items:
            self._reporter.kept(items)
        self._tell(note, items)

    def did(self, kind: str, note: str = "", *, size: float = 1, finished: int = 0) -> None:
        """Take all time since the last part, or the beginning, for that of one part.

        Args:
            kind: the part's kind.
            note: names the part.
            size: the part's size, in the unit in which the parts of its kind are counted.
            finished: number of items that are done with it.
        """
        now = time.monotonic()
        if size:
            self._first.setdefault(kind, (self._taken[kind] + now - self._last, size))
        self._taken[kind] += now - self._last
        self._number[kind] += size
        self._take_off(kind, size)
        self._last = now
        self._tell(note, finished)

    def _take_off(self, kind: str, size: float) -> None:
        left = self._left[kind] - size
        self._left[kind] = left if left > _ROUNDING * size else 0.0

    def _tell(self, note: str, finished: int) -> None:
        self._done += finished
        left = self._seconds_left()
        if left is not None:
            self._reporter.remaining(left)
        self._reporter.progress(self._done, self._items, note)

    def _seconds_left(self) -> float | None:
        """Return the time left; None: nothing tells it yet."""
        measured = [kind for kind, number in self._number.items() if number]
        average = {kind: self._average(kind) for kind in measured}
        units = [average[kind] / self._guesses[kind] for kind in measured if self._guesses[kind]]
        if not units:
            return None
        unit = statistics.median(units)  # one kind that is guessed badly misleads no other
        each = {kind: unit * guess for kind, guess in self._guesses.items()}
        each |= average
        return sum(number * each[kind] for kind, number in self._left.items())

    def _average(self, kind: str) -> float:
        taken, number = self._taken[kind], self._number[kind]
        first, size = self._first[kind]
        average = taken / number
        return min(average, (taken - first) / (number - size)) if number > size else average


class Sized:
    """Progress of a job whose work items are of one kind, but of unequal size."""

    def __init__(self, reporter: Reporter, sizes: Sequence[float]) -> None:
        """Begin, and report the number of items.

        Args:
            reporter: hears of each item.
            sizes: size of each item in any unit, in the order in which they are done.
        """
        self._reporter, self._sizes, self._done = reporter, sizes, 0
        self._began = time.monotonic()
        reporter.progress(0, len(sizes))

    def did(self, note: str = "") -> None:
        """Report the next item, and a time left that goes by the sizes."""
        self._done += 1
        done, left = sum(self._sizes[: self._done]), sum(self._sizes[self._done :])
        if done > 0:
            self._reporter.remaining((time.monotonic() - self._began) * left / done)
        self._reporter.progress(self._done, len(self._sizes), note)


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


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 frame, 2 frames."""
    return f"{number} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return a number of seconds as text: 8.2 s, 4:05 min, 3:20 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"
