"""Progress on stderr: a bar with rate and time left; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..pipeline.progress import Progress

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Yield the `on_progress(done, total, note)` that a job reports to."""
    if sys.stderr.isatty():
        with _bar(title) as on_progress:
            yield on_progress
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, rate="", note="")
        began = time.monotonic()

        def on_progress(done: int, total: int, note: str) -> None:
            rate = done / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:.1f}/s", note=note)

        yield on_progress


def _lines(title: str) -> Progress:
    began = time.monotonic()
    last = began

    def on_progress(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if not total:
            return
        if done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = done / max(now - began, 1e-9)
        left = (total - done) / rate if rate > 0 else float("nan")
        tail = f", {left:.0f} s left" if done < total else f" in {now - began:.1f} s"
        note = f", {note}" if note else ""
        print(f"{title}: {done}/{total}, {rate:.1f}/s{tail}{note}", file=sys.stderr, flush=True)

    return on_progress
