"""Frames that are found side by side on the cores of a CPU.

Each is found on one thread: what several threads of torch make together depends on their number in
the last bits, and costs many times the time where other programs use the same cores. Threads that
have no frame help with the strips of rows of those that have one, each strip on one thread too.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from ...model.paths import helped
from ..host.machine import available_cores, free_main_memory

MOST_THREADS = 8
"""Most frames that are found at once: Python itself runs on one core."""

PIXEL_BYTES = 2200
"""Memory that a frame takes while it is found, in bytes a pixel."""

SHARE_OF_MEMORY = 0.5
"""Share of the free memory that these frames may take together."""

A = TypeVar("A")
T = TypeVar("T")


def frame_bytes(frame_shape: tuple[int, int]) -> int:
    """Return what a frame of a size (H, W) takes while it is found, in bytes."""
    return PIXEL_BYTES * frame_shape[0] * frame_shape[1]


def threads_that_fit(frame_shape: tuple[int, int]) -> int:
    """Return how many frames of a size (H, W) may be found at once.

    Raises:
        MachineError: `SPIKEDEBLUR_MEMORY` is no size.
    """
    fit = int(SHARE_OF_MEMORY * free_main_memory()) // frame_bytes(frame_shape)
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
        helped.set(functools.partial(_with_help, stopped))
        with _EndedBy(stopped), _working:
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


class _Working:
    """Counts threads that have a frame."""

    def __init__(self) -> None:
        self.number = 0
        self._changing = threading.Lock()

    def __enter__(self) -> None:
        with self._changing:
            self.number += 1

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self.number -= 1


_working = _Working()


def _with_help(
    stopped: threading.Event, task: Callable[[slice], T], parts: Sequence[slice]
) -> list[T]:
    """Do a task for each part, as `model.paths.helped` says, with threads that have no frame."""
    left = deque(enumerate(parts))
    found: dict[int, T] = {}

    def work() -> None:
        while left:
            try:
                i, part = left.popleft()
            except IndexError:  # another thread took the last one
                return
            found[i] = task(part)

    def help_out() -> None:
        with torch.inference_mode(), _EndedBy(stopped):
            work()

    idle = max(0, _number_of_threads() - _working.number)
    helpers = [_threads().submit(help_out) for _ in range(min(idle, len(parts) - 1))]
    try:
        work()
    finally:
        left.clear()
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()
    return [found[i] for i in range(len(parts))]


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


def _number_of_threads() -> int:
    return min(available_cores(), MOST_THREADS)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the process's threads, each of which computes alone."""
    before = torch.get_num_threads()
    number = _number_of_threads()
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
