"""Frames side by side: what one thread's error, or Ctrl-C, leaves of the others."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import FrameType

import pytest
import torch

from spikedeblur.pipeline.methods import side_by_side as module
from spikedeblur.pipeline.methods.side_by_side import side_by_side

LONG = 20.0  # seconds, of which a test takes a small part
_find_threads = module._threads.__wrapped__


@pytest.fixture(autouse=True)
def two_threads(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    pool = _find_threads()
    monkeypatch.setattr(module, "_threads", lambda: pool)
    yield
    pool.shutdown()


class Work:
    """Frames that take long, and how many are worked on."""

    def __init__(self) -> None:
        self.began, self.at_work = threading.Event(), 0

    def __call__(self, value: int) -> int:
        if value == 0:
            self.began.wait(LONG)
            raise ValueError("frame 0")
        self.at_work += 1
        self.began.set()
        x = torch.ones(8)
        until = time.monotonic() + LONG
        try:
            while time.monotonic() < until:
                x = x * 1
        finally:
            self.at_work -= 1
        return value


def test_each_thread_computes_alone_whatever_the_process_does(monkeypatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pool = _find_threads()
        monkeypatch.setattr(module, "_threads", lambda: pool)
        numbers = side_by_side(lambda value: torch.get_num_threads(), range(4), "cpu")
        assert list(numbers) == [1, 1, 1, 1]
        assert torch.get_num_threads() == 3
        pool.shutdown()
    finally:
        torch.set_num_threads(before)


def test_an_error_in_one_frame_ends_the_others() -> None:
    work, began = Work(), time.monotonic()
    with pytest.raises(ValueError, match="frame 0"):
        list(side_by_side(work, [0, 1, 2, 3], "cpu"))
    assert work.at_work == 0
    assert time.monotonic() - began < LONG / 2


def test_whoever_waits_no_longer_ends_all_frames() -> None:
    began = time.monotonic()
    work = Work()

    def second(value: int) -> int:
        return value if value == 0 else work(value)

    with closing(side_by_side(second, [0, 1, 2], "cpu")) as found:
        assert next(found) == 0
        work.began.wait(LONG)
    assert work.at_work == 0
    assert time.monotonic() - began < LONG / 2


def test_threads_do_not_wait_for_one_that_was_stopped_while_they_began(monkeypatch) -> None:
    def stopped(self: threading.Barrier) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        wait(self)

    wait = threading.Barrier.wait
    monkeypatch.setattr(threading.Barrier, "wait", stopped)
    with pytest.raises(KeyboardInterrupt):
        _find_threads()
    until = time.monotonic() + LONG / 2
    while any(map(begins, sys._current_frames().values())):
        assert time.monotonic() < until
        time.sleep(0.01)


def begins(frame: FrameType | None) -> bool:
    """Return whether a thread is still in `begin`."""
    while frame is not None and frame.f_code.co_name != "begin":
        frame = frame.f_back
    return frame is not None
