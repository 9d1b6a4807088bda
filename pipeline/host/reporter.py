"""How a job tells whoever runs it how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, note)`, in units of the job's own work items."""

Note = Callable[[str], None]
"""Told in a sentence what is good to know."""


class Throughput:
    """How many bytes a job has worked through, and how fast, in words."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bytes = 0

    def __call__(self, n_bytes: int) -> str:
        """Return the words, with `n_bytes` more than before."""
        self._bytes += n_bytes
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{self._bytes / 1e6:.1f} MB, {self._bytes / 1e6 / seconds:.1f} MB/s"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 8.2 s, 4:05 min, 3:20 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"
