"""Windows kept in memory, up to a limit in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]


class LRUCache:
    """Arrays by key, the least recently used out first; threads may share it.

    The arrays are read-only, and those that `get` returns are the cache's own: copy what you
    change.

    Args:
        max_memory_gb: Limit of all arrays together, in GiB; what is larger alone is not kept.
    """

    def __init__(self, max_memory_gb: float = 50.0) -> None:
        self.limit_bytes = int(max_memory_gb * 2**30)
        self.bytes = 0
        self.hits = self.misses = self.evictions = 0
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
        """Return the arrays of a key, now the most recently used; None: not there."""
        with self._lock:
            arrays = self._held.get(key)
            if arrays is None:
                self.misses += 1
                return None
            self.hits += 1
            self._held.move_to_end(key)
            return arrays

    def put(self, key: Hashable, value: Sequence[np.ndarray]) -> None:
        """Hold arrays under a key, dropping the least recently used ones to make room."""
        size = sum(array.nbytes for array in value)
        # A view would keep the whole array that it is a part of alive, uncounted.
        arrays = tuple(array if array.base is None else array.copy() for array in value)
        for array in arrays:
            array.flags.writeable = False
        with self._lock:
            self._drop(key)
            if size > self.limit_bytes:
                return
            while self.bytes + size > self.limit_bytes:
                self._drop(next(iter(self._held)))
                self.evictions += 1
            self._held[key] = arrays
            self.bytes += size

    def get_stats(self) -> dict[str, float]:
        """Return what the cache holds and did: counts, memory in GiB, hits as a share of gets."""
        return {
            "items": len(self),
            "memory_gb": self.bytes / 2**30,
            "max_memory_gb": self.limit_bytes / 2**30,
            "hits": self.hits,
            "misses": self.misses,
            "evictions": self.evictions,
            "hit_rate": self.hits / max(self.hits + self.misses, 1),
        }

    def since_last(self) -> tuple[int, int]:
        """Return hits and misses since the last call."""
        with self._lock:
            now = self.hits, self.misses
            before, self._before = self._before, now
            return now[0] - before[0], now[1] - before[1]

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes fit without dropping anything."""
        return self.bytes + size <= self.limit_bytes

    def _drop(self, key: Hashable) -> None:
        self.bytes -= sum(array.nbytes for array in self._held.pop(key, ()))
