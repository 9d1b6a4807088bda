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

from spikedeblur.model.paths import for_each
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
        x = torch.ones(8)
        until = time.monotonic() + LONG
        self.at_work += 1
        self.began.set()
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


PARTS = [slice(i, i + 1) for i in range(6)]


def test_threads_without_a_frame_help_with_the_strips_of_another() -> None:
    both = threading.Barrier(2)  # which a thread alone would not pass

    def strip(rows: slice) -> tuple[int, int, bool]:
        if rows.start < 2:
            both.wait(LONG)
        return rows.start, torch.get_num_threads(), torch.ones(4)[rows].is_inference()

    (found,) = side_by_side(lambda _: for_each(strip, PARTS), [0], "cpu")
    assert found == [(i, 1, True) for i in range(6)]


def test_threads_with_a_frame_of_their_own_help_nobody() -> None:
    both = threading.Barrier(2)

    def frame(_: int) -> set[int]:
        both.wait(LONG)
        threads = set(for_each(lambda rows: threading.get_ident(), PARTS))
        both.wait(LONG)
        return threads

    assert [len(threads) for threads in side_by_side(frame, [0, 1], "cpu")] == [1, 1]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_in_a_strip_is_that_of_the_frame(bad: int) -> None:
    both = threading.Barrier(2)

    def strip(rows: slice) -> None:
        if rows.start < 2:
            both.wait(LONG)
        if rows.start == bad:
            raise ValueError(f"strip {bad}")

    with pytest.raises(ValueError, match=f"strip {bad}"):
        list(side_by_side(lambda _: for_each(strip, PARTS), [0], "cpu"))


def test_whoever_waits_no_longer_ends_strips_too() -> None:
    work, began = Work(), time.monotonic()

    def second(value: int) -> list[int]:
        return [] if value == 0 else for_each(lambda rows: work(1), PARTS)

    with closing(side_by_side(second, [0, 1], "cpu")) as found:
        assert next(found) == []
        work.began.wait(LONG)
    assert work.at_work == 0
    assert time.monotonic() - began < LONG / 2
