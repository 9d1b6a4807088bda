"""What the C library keeps of freed memory, and what it gives back to the system."""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES = 256 * 2**20
"""Largest array whose memory is kept for reuse, in bytes."""

KEEPING = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(KEPT_BYTES))
"""Environment with which a process keeps freed memory from its start; see `keep_freed_memory`."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_GLIBC_MMAP_THRESHOLD = 32 * 2**20  # where its own adaption ends, on 64 bits


def keep_freed_memory() -> None:
    """Let this process reuse arrays of up to `KEPT_BYTES`; without glibc, do nothing.

    By default glibc unmaps large blocks when they are freed, and the system clears each page of
    the next one again: a third of the time of cutting batches.
    """
    _keep_up_to(KEPT_BYTES, KEPT_BYTES)


def share_freed_memory_among_threads() -> None:
    """Let all threads take memory that any of them freed; without glibc, do nothing.

    By default each thread has heaps of its own, of at most 64 MiB: larger arrays are mapped and
    cleared anew each time, and what one thread freed no other takes. It holds for threads that
    start later.
    """
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def keep_share_of_freed_memory(share: float) -> None:
    """Multiply by `share` the sizes from which glibc gives freed memory back.

    By default blocks above 32 MiB are unmapped when they are freed, and smaller ones leave holes
    in the heap; so a small model of a large computation has relatively more holes, unless the
    limits shrink with it.
    """
    _keep_up_to(int(share * _GLIBC_MMAP_THRESHOLD), int(2 * share * _GLIBC_MMAP_THRESHOLD))


def give_back_freed_memory() -> None:
    """Have glibc give back the freed memory that it keeps; without glibc, do nothing."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _keep_up_to(mapped: int, trimmed: int) -> None:
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, trimmed)
        mallopt(_M_MMAP_THRESHOLD, mapped)


def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
