"""Frames that are found side by side on the cores of a CPU.

Each is found on one thread: what several threads of torch make together depends on their number in
the last bits, and costs many times the time where other programs use the same cores.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

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


def side_by_side(
    task: Callable[[A], T], values: Iterable[A], device: str
) -> Generator[T, None, None]:
    """Yield what a task gives for each value, in order; without gradients.

    On a CPU each is done by a thread of its own, of at most `MOST_THREADS`, and one of torch's.
    Where one fails, or the caller is stopped or closes this, the others end before it goes on.
    """
    stopped = threading.Event()

    def inferred(value: A) -> T:
        with torch.inference_mode():
            return task(value)

    def in_a_thread(value: A) -> T:
        with _EndedBy(stopped):
            return inferred(value)

    if device != "cpu":
        yield from map(inferred, values)
        return
    futures: list[Future[T]] = []
    try:
        futures += (_threads().submit(in_a_thread, value) for value in values)
        for future in futures:
            yield future.result()
    finally:
        stopped.set()
        wait([future for future in futures if not future.cancel()])


class _EndedBy(TorchFunctionMode):
    """Ends what a thread computes at its next operation of torch, once an event has come.

    Python waits for threads at its end, and a large frame takes minutes.
    """

    def __init__(self, stopped: threading.Event) -> None:
        super().__init__()
        self._stopped = stopped

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do an operation."""
        if self._stopped.is_set():
            raise CancelledError
        return func(*args, **(kwargs or {}))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the process's threads, each of which computes alone."""
    before = torch.get_num_threads()
    number = min(available_cores(), MOST_THREADS)
    ready = threading.Barrier(number + 1)

    def begin() -> None:
        torch.get_num_threads()  # or torch would take the process's number at the first operation
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(number, thread_name_prefix="frames")
    for _ in range(number):
        pool.submit(begin)
    try:
        ready.wait()
    except BaseException:
        ready.abort()  # or threads would wait for this one for ever
        raise
    torch.set_num_threads(before)  # which was changed for the libraries that all threads share
    return pool
