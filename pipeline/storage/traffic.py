"""What reading from buckets took, counted in each process."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests for objects and parts of them, and their bytes."""

    requests: int = 0
    fetched: int = 0
    """Bytes that came from buckets."""
    used: int = 0
    """Bytes that readers asked for, from buckets or from the disk cache."""
    trouble: str = ""
    """Why the disk cache takes nothing more; empty: it does, or it was told before."""

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.requests + other.requests,
            self.fetched + other.fetched,
            self.used + other.used,
            self.trouble or other.trouble,
        )


class TrafficCounter:
    """Counts the traffic of a process, whose threads may share it."""

    def __init__(self) -> None:
        self.is_handed_on = False
        """Whether another process takes the counts, and says what the trouble is."""
        self.total = Traffic()
        """Traffic since the process began."""
        self._new = Traffic()
        self._lock = threading.Lock()

    def count(
        self, *, requests: int = 0, fetched: int = 0, used: int = 0, trouble: str = ""
    ) -> None:
        """Add to the counts."""
        more = Traffic(requests, fetched, used, trouble)
        with self._lock:
            self.total += more
            self._new += more

    def since_last(self) -> Traffic:
        """Return the traffic since the last call."""
        with self._lock:
            new, self._new = self._new, Traffic()
        return new


TRAFFIC = TrafficCounter()
"""Traffic of this process."""
