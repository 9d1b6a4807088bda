"""Clean stop on Ctrl-C or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Remembers a signal, and is true from then on."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Yield a request that becomes true at the first SIGINT or SIGTERM.

    A second SIGINT acts as usual. A second SIGTERM does nothing: a cluster's scheduler signals
    every process of a job, and torchrun passes on what it got. Signals can be received in the
    main thread only; elsewhere it stays false.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(signal.SIGINT, former[signal.SIGINT])

    for number in former:
        signal.signal(number, remember)
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
