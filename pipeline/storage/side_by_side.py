"""Calls that wait for a network, side by side: many then take the time of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 32
"""Most calls at once: more answers than one core can handle."""


def together(calls: Sequence[Callable[[], T]], *, side_by_side: bool = True) -> list[T]:
    """Return each call's result, in order.

    A call may use this function itself: threads are not shared between uses.

    Args:
        calls: functions without arguments.
        side_by_side: whether to call them in threads, or here one after another.

    Raises:
        Exception: the error of the first call that failed, in order, once all have ended.
    """
    if not side_by_side or len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(len(calls), AT_ONCE)) as pool:
        futures = [pool.submit(call) for call in calls]
    return [future.result() for future in futures]
