"""Windows kept in memory, up to a limit in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]


@dataclass(slots=True)
class CacheStatistics:
    """Counts of what a cache did so far."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class WindowCache:
    """Keeps the arrays that were used last; they are read-only, callers copy what they change.

    Threads may share it.

    Args:
        limit_bytes: most bytes of all arrays together; one that is larger is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.statistics = CacheStatistics()
        self._held: OrderedDict[Hashable, Arrays] = OrderedDict()
        self._before = (0, 0)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_lock": threading.Lock()})

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable) -> Arrays | None:
        """Return what is held under `key`, now the most recently used, or None."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                self.statistics.misses += 1
                return None
            self.statistics.hits += 1
            self._held.move_to_end(key)
            return held

    def put(self, key: Hashable, arrays: Sequence[np.ndarray]) -> None:
        """Hold arrays under `key`, dropping the least recently used ones to make room."""
        size = sum(array.nbytes for array in arrays)
        # A view would keep the whole array that it is a part of alive, uncounted.
        owned = tuple(array if array.base is None else array.copy() for array in arrays)
        for array in owned:
            array.flags.writeable = False
        with self._lock:
            self._drop(key)
            if size > self.limit_bytes:
                return
            while self.bytes + size > self.limit_bytes:
                self._drop(next(iter(self._held)))
                self.statistics.evictions += 1
            self._held[key] = owned
            self.bytes += size

    def since_last(self) -> tuple[int, int]:
        """Return hits and misses since the last call."""
        with self._lock:
            now = self.statistics.hits, self.statistics.misses
            before, self._before = self._before, now
            return now[0] - before[0], now[1] - before[1]

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes fit without dropping anything."""
        return self.bytes + size <= self.limit_bytes

    def _drop(self, key: Hashable) -> None:
        dropped = self._held.pop(key, None)
        if dropped is not None:
            self.bytes -= sum(array.nbytes for array in dropped)
