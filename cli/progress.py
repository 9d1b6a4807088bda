"""Progress on stderr: a bar with rate and time left; plain lines where there is no terminal.

With --log-format json it is one JSON object a line, for programs that watch a job.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.abc import MetaPathFinder

from ..pipeline.host.reporter import Reporter, duration
from .output import chosen_log_format, clean, is_quiet, note, say

Show = Callable[[int, int, str], None]
"""A function `show(done, total, note)`, in units of the job's own work items."""

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_OBJECTS = 1.0
_MOST_WARNINGS = 20


class TerminalReporter(Reporter):
    """Shows progress and notes on stderr, and keeps warnings until the job has ended."""

    def __init__(self, show: Show, pace: _Pace) -> None:
        self._show, self._pace = show, pace
        self.warnings: list[str] = []

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Move the bar."""
        self._show(done, total, note)

    def remaining(self, seconds: float) -> None:
        """Show this in place of what the pace so far tells."""
        self._pace.expected = seconds

    def kept(self, items: int) -> None:
        """Count these, but not as work of this run."""
        self._pace.keep(items)

    def counts(self, unit: str) -> None:
        """Name these from the next report on."""
        self._pace.unit = unit

    def note(self, sentence: str) -> None:
        """Print the sentence, but not with --quiet."""
        note(sentence)

    def warn(self, sentence: str) -> None:
        """Keep the sentence, each once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


@contextmanager
def progress_bar(title: str, unit: str = "") -> Iterator[TerminalReporter]:
    """Yield the reporter of a job; print its warnings when the job has ended, or failed.

    A job may have several phases: where `total` changes or `done` falls back, a new one begins.
    Warnings are all that is printed with --quiet.

    Args:
        title: what is done, such as Voxelizing.
        unit: what is counted, such as windows.
    """
    with ExitStack() as opened:
        pace = _Pace(unit)
        show: Show = _nothing
        if chosen_log_format.get() == "json" and not is_quiet.get():
            show = _lines(title, pace, as_json=True)
        elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not is_quiet.get():
            show = opened.enter_context(_bar(title, pace))
        elif not is_quiet.get():
            show = _lines(title, pace, as_json=False)
        reporter = TerminalReporter(show, pace)
        opened.callback(_print_warnings, reporter.warnings)
        yield reporter


def _nothing(done: int, total: int, note: str) -> None:
    pass


def _print_warnings(warnings: list[str]) -> None:
    for warning in warnings[:_MOST_WARNINGS]:
        say(warning, err=True, label="warning")
    if len(warnings) > _MOST_WARNINGS:
        rest = len(warnings) - _MOST_WARNINGS
        say(f"and {rest} more; --json lists all", err=True, label="warning")


class _Pace:
    """Rate and time left of the present phase, measured from its first report on.

    What was done before that, by a run that is continued, has cost no time here.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        """What is counted."""
        self.began = time.monotonic()
        self._start = (0, self.began)
        self._last = (-1, -1)
        self.expected: float | None = None
        """Time left in seconds, as the job itself tells it; None: it doesn't."""

    def keep(self, items: int) -> None:
        """Leave out of the rate what comes with the next report, but has cost no time here."""
        done, began = self._start
        self._start = (done + items, began)

    def update(self, done: int, total: int) -> bool:
        """Take a report, and return whether a phase began with it."""
        begins = total != self._last[1] or done < self._last[0]
        if begins:
            now = time.monotonic()
            # A first item among many has just been done, from the job's start; more were there.
            first = self._last == (-1, -1) and done <= 1
            self._start = (0, self.began) if first and done else (done, now)
            if not first:
                self.began = now
                self.expected = None
        self._last = (done, total)
        return begins

    @property
    def seconds(self) -> float:
        """Duration of this phase so far, in seconds."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float | None:
        """Items a second; None: not known yet."""
        done, seconds = self._last[0] - self._start[0], time.monotonic() - self._start[1]
        return done / seconds if done > 0 and seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Time left in seconds; None: not known yet."""
        if self.expected is not None:
            return self.expected
        rate = self.rate
        return None if rate is None else (self._last[1] - self._last[0]) / rate


@contextmanager
def _bar(title: str, pace: _Pace) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Note(TextColumn):
        """What is in work: the first to give way where a line is too narrow for all."""

        def render(self, task: Task) -> Text:
            text = super().render(task)
            text.no_wrap, text.overflow = True, "ellipsis"
            return text

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeElapsedColumn(),
        Note("{task.fields[note]}", markup=False, table_column=Column()),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, pace=pace.unit, note="")
        waiting = _Waiting(lambda: bar.update(task, note="loading torch"))

        def show(done: int, total: int, note: str) -> None:
            pace.update(done, total)
            bar.update(task, completed=done, total=total, pace=_words(pace), note=clean(note))

        with waiting:
            yield show


class _Waiting(MetaPathFinder):
    """Tells when torch begins to load, for which one waits seconds; it finds nothing itself."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "torch":
            self._tell()

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *raised: object) -> None:
        sys.meta_path.remove(self)


def _lines(title: str, pace: _Pace, *, as_json: bool) -> Show:
    last = pace.began
    interval = _SECONDS_BETWEEN_OBJECTS if as_json else _SECONDS_BETWEEN_LINES

    def show(done: int, total: int, note: str) -> None:
        nonlocal last
        is_due = (pace.update(done, total) and as_json) or done >= total
        now = time.monotonic()
        if not total or not (is_due or now - last >= interval):
            return
        last = now
        if as_json:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "stage": title.lower(),
                "done": done,
                "total": total,
                "rate": pace.rate,
                "eta": pace.left,
                "unit": pace.unit,
                "detail": note,
            }
            text = json.dumps(line)
        else:
            took = f"in {duration(pace.seconds)}" if done >= total else ""
            words = [f"{title}: {done}/{total} {_words(pace)}".rstrip(), took, note]
            text = ", ".join(filter(None, words))
        say(text, err=True)

    return show


def _words(pace: _Pace) -> str:
    rate, left = pace.rate, pace.left
    words = [pace.unit] if pace.unit else []
    if rate is not None:
        # Less than one a second is easier to read as the time of one.
        words.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
    if left:
        words.append(f"{duration(left)} left")
    return ", ".join(words)
