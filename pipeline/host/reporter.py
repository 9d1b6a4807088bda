"""How a job reports its progress, notes and warnings."""

from __future__ import annotations

import logging
import time

_logger = logging.getLogger(__name__)


class Reporter:
    """A listener to a job. This one hears nothing but warnings, which go to `logging`.

    Subclasses override what they want to hear. Jobs call it from the thread that started them.
    """

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Hear how far the job is, in units of its own work items; `note` names the item."""

    def note(self, sentence: str) -> None:
        """Hear what the job decided, and what is good to know."""

    def warn(self, sentence: str) -> None:
        """Hear what may be wrong with the input or the result."""
        _logger.warning("%s", sentence)


SILENT = Reporter()
"""The default of every job."""


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
