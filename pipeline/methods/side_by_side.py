"""Frames that are found side by side on the cores of a CPU.

Each is found on one thread: what several threads of torch make together depends on their number in
the last bits, and costs many times the time where other programs use the same cores.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ..host.machine import available_cores, free_main_memory

MOST_THREADS = 8
"""Most frames that are found at once: Python itself runs on one core."""

PIXEL_BYTES = 2200
"""Memory that a frame takes while it is found, in bytes a pixel."""

SHARE_OF_MEMORY = 0.5
"""Share of the free memory that these frames may take together."""

A = TypeVar("A")
T = TypeVar("T")


def threads_that_fit(frame_shape: tuple[int, int]) -> int:
    """Return how many frames of a size (H, W) may be found at once.

    Raises:
        MachineError: `SPIKEDEBLUR_MEMORY` is no size.
    """
    height, width = frame_shape
    fit = int(SHARE_OF_MEMORY * free_main_memory()) // (PIXEL_BYTES * height * width)
    return max(1, min(available_cores(), MOST_THREADS, fit))


def side_by_side(task: Callable[[A], T], values: Iterable[A], device: str) -> Iterator[T]:
    """Yield what a task gives for each value, in order; without gradients.

    On a CPU each is done by a thread of its own, of at most `MOST_THREADS`, and one of torch's.
    """

    def inferred(value: A) -> T:
        with torch.inference_mode():
            return task(value)

    if device != "cpu":
        return map(inferred, values)
    return _threads().map(inferred, values)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the process's threads, each of which computes alone."""
    before = torch.get_num_threads()
    number = min(available_cores(), MOST_THREADS)
    ready = threading.Barrier(number + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(number, thread_name_prefix="frames")
    for _ in range(number):
        pool.submit(begin)
    ready.wait()
    torch.set_num_threads(before)  # which was changed for the libraries that all threads share
    return pool
