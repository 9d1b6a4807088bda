"""Threads for work that spends its time in files and in libraries that let others run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from .machine import available_cores

_MOST_THREADS = 8


@contextmanager
def thread_pool(workers: int | None, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; after an error, tasks that have not begun are left out.

    Args:
        workers: threads; None: one a core, at most 8.
        name: prefix of the threads' names.
    """
    n_workers = workers or min(_MOST_THREADS, available_cores())
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
