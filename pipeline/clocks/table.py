"""Tables of exposures (CSV): a row for each frame, or for each edge of a trigger or strobe.

    file;start_ms;end_ms             start and end, or exposure
    frame,middle [s],exposure [us]   the middle of the exposure and its length
    time_us,edge                     rising or falling, 1 or 0; between them the shutter was open
    rising_us                        a shutter of known length opened

The name of a column ends with its unit. Rows with a frame's name belong to that frame, others
to the frames in their order.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..host.reading import StrPath, read_file
from ..host.reporter import counted
from .durations import UNITS, TimelineError, exact_duration
from .edges import UncertainMatchError, match_edges
from .exposures import Exposures, require_shutter
from .names import numbers_in

_ROLES = {
    "file": ("file", "frame", "name", "filename", "file_name", "image", "frame_name"),
    "start": ("start", "begin", "exposure_start", "start_time", "open"),
    "end": ("end", "stop", "exposure_end", "end_time", "close"),
    "middle": ("middle", "mid", "centre", "center", "exposure_middle"),
    "exposure": ("exposure", "exposure_time", "shutter", "duration", "length"),
    "time": ("time", "timestamp", "t"),
    "edge": ("edge", "level", "state", "value"),
    "rising": ("rising", "rise", "rising_edge"),
    "falling": ("falling", "fall", "falling_edge"),
}
"""What a column holds, by its name without unit."""

_IN_TIME = frozenset(_ROLES) - {"file", "edge"}
_UNIT = re.compile(
    r"(?P<name>.*?)\s*[_\s/(\[]\s*(?P<unit>s|ms|us|µs|μs|ns)\s*[)\]]?", re.IGNORECASE
)
_UP = frozenset(("1", "rising", "rise", "up", "high", "r", "true", "+"))
_DOWN = frozenset(("0", "falling", "fall", "down", "low", "f", "false", "-"))
_ALIGNMENT_LOG = "frame_idx,t0,t1"
_MOST_BYTES = 1 << 28

EXPECTED = (
    "columns start_ms and end_ms, start_ms and exposure_ms, middle_ms and exposure_ms, time_us and "
    "edge, or rising_us with --shutter (or other units)"
)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table's cells: times in seconds, by what they are."""

    path: StrPath
    lines: list[int]
    """Line of each row in the file."""
    times: dict[str, list[Fraction]]
    texts: dict[str, list[str]]

    def name(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"


def read_times(
    path: StrPath,
    names: Sequence[str],
    *,
    shutter: float | None = None,
    start: float | None = None,
    stamps: Sequence[float] | None = None,
) -> Exposures:
    """Return the exposures of frames from a table or a log of trigger edges.

    Args:
        path: the CSV file.
        names: names of the frames' files, in order of time.
        shutter: length of every exposure, in seconds, where the file has none.
        start: instant at which the first exposure begins, in seconds on the spikes' clock; None:
            the file's times are on that clock.
        stamps: times of the frames on a clock of their own, in seconds, if they have any.

    Raises:
        TimelineError: another kind of file, or times that can't be; names file and line.
    """
    if shutter is not None:
        require_shutter(shutter)
    table = _read(path)
    if "edge" in table.texts or "rising" in table.times:
        starts, ends, rows = _by_edges(table, names, shutter, stamps)
    else:
        starts, ends, rows = _by_rows(table, names, shutter)
    shift = Fraction(0) if start is None else Fraction(start) - starts[0]
    return Exposures.measured(
        [float(at + shift) for at in starts],
        [float(at + shift) for at in ends],
        [f"{table.name(row)} ({name})" for row, name in zip(rows, names, strict=True)],
        str(path),
    )


_Times = tuple[list[Fraction], list[Fraction], list[int]]
"""Starts and ends of the frames' exposures in seconds, and the row of each."""


def _by_rows(table: _Table, names: Sequence[str], shutter: float | None) -> _Times:
    """Return exposures of which the table has a row each."""
    rows = _rows_by_name(table, names) if "file" in table.texts else _rows_in_order(table, names)
    length = _lengths(table, shutter)
    times = table.times
    if "start" in times:
        starts = times["start"]
        ends = times.get("end") or [a + b for a, b in zip(starts, length, strict=True)]
    elif "middle" in times:
        starts = [middle - b / 2 for middle, b in zip(times["middle"], length, strict=True)]
        ends = [middle + b / 2 for middle, b in zip(times["middle"], length, strict=True)]
    else:
        ends = times["end"]
        starts = [end - b for end, b in zip(ends, length, strict=True)]
    return [starts[row] for row in rows], [ends[row] for row in rows], rows


def _lengths(table: _Table, shutter: float | None) -> list[Fraction]:
    times = table.times
    if not times.keys() & {"start", "middle", "end"}:
        loose = " and ".join(times) or "no time"
        raise TimelineError(
            f"{table.path}: expected {EXPECTED}, found {loose}; name the column start_ms or "
            "middle_ms if it says when exposures begin or are half over"
        )
    given = [
        what
        for what, there in (
            ("exposure", "exposure" in times),
            ("end", {"start", "end"} <= times.keys()),
            ("--shutter", shutter is not None),
        )
        if there
    ]
    if len(given) > 1:
        raise TimelineError(
            f"{table.path}: expected one length of an exposure, found {' and '.join(given)}; "
            "leave one of them out"
        )
    if not given:
        raise TimelineError(
            f"{table.path}: expected the length of the exposures, found only "
            f"{' and '.join(times)}; add --shutter 16ms, or a column end_ms or exposure_ms"
        )
    if "exposure" in times:
        return times["exposure"]
    return [Fraction(shutter or 0)] * len(table.lines)


def _rows_in_order(table: _Table, names: Sequence[str]) -> list[int]:
    if len(table.lines) != len(names):
        raise TimelineError(
            f"{table.path}: expected {counted(len(names), 'row')}, one for each frame from "
            f"{names[0]} to "
            f"{names[-1]}, found {len(table.lines)}; complete them, or add a column `file` with "
            "the frames' names"
        )
    return list(range(len(names)))


def _rows_by_name(table: _Table, names: Sequence[str]) -> list[int]:
    rows: dict[str, int] = {}
    for row, cell in enumerate(table.texts["file"]):
        key = _key(cell)
        if key in rows:
            raise TimelineError(
                f"{table.name(row)}: expected each frame once, found {cell} as in line "
                f"{table.lines[rows[key]]}; remove one"
            )
        rows[key] = row
    missing = [name for name in names if _key(name) not in rows]
    if missing:
        raise TimelineError(
            f"{table.path}: expected a row for each frame, found none for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; add it, or leave the "
            "column of names out if rows are in the frames' order"
        )
    return [rows[_key(name)] for name in names]


def _key(name: str) -> str:
    """Return what tells a frame: its name without folder and ending, or its number alone."""
    base = name.strip().replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = base.rpartition(".")
    if dot and not ending.isdigit():
        base = stem
    # Spreadsheets take the zeros of 0031.
    return str(int(base)) if base.isascii() and base.isdigit() else base


def _by_edges(
    table: _Table, names: Sequence[str], shutter: float | None, stamps: Sequence[float] | None
) -> _Times:
    """Return exposures that edges begin; they end with the next falling edge, or the shutter."""
    rising, falling = _pulses(table, with_ends=shutter is None)
    if not rising:
        raise TimelineError(f"{table.path}: expected rising edges, found none; check the column")
    starts = [at for at, _ in rising]
    rows = [row for _, row in rising]
    for row, (before, after) in zip(rows[1:], itertools.pairwise(starts), strict=True):
        if after <= before:
            raise TimelineError(
                f"{table.name(row)}: expected a time after {float(before):.9g} s, found "
                f"{float(after):.9g} s; put the edges in order of time"
            )
    # Differences, because a camera's clock may count from 1970 and a float has few digits.
    since = [float(at - starts[0]) for at in starts]
    try:
        match = match_edges(
            since, names, [table.lines[row] for row in rows], numbers_in(names), stamps
        )
    except UncertainMatchError as error:
        raise TimelineError(
            f"{table.path}: expected an edge for each of {counted(len(names), 'frame')}, found "
            f"{counted(len(starts), 'rising edge')}, {error}; remove the edges or frames without "
            "partner, or give a table of file, start and exposure"
        ) from error
    lengths = [Fraction(shutter)] * len(starts) if shutter is not None else falling
    at = [_at(starts, place) for place in match]
    ends = [
        begin + _length(lengths, place, table, names[i])
        for i, (begin, place) in enumerate(zip(at, match, strict=True))
    ]
    return at, ends, [rows[int(place)] for place in match]


def _at(values: Sequence[Fraction], place: float) -> Fraction:
    i = int(place)
    part = Fraction(place - i).limit_denominator(10**6)
    return values[i] if not part else values[i] + part * (values[i + 1] - values[i])


def _length(lengths: Sequence[Fraction], place: float, table: _Table, name: str) -> Fraction:
    i = int(place)
    if place != i and abs(lengths[i + 1] - lengths[i]) > lengths[i] / 100:
        raise TimelineError(
            f"{table.path}: expected an edge for {name}, found none, and its neighbours' pulses "
            "differ in length; add the edge, move the frame away, or give --shutter"
        )
    return lengths[i]


def _pulses(table: _Table, *, with_ends: bool) -> tuple[list[tuple[Fraction, int]], list[Fraction]]:
    """Return (time, row) of rising edges, and lengths of pulses where they are asked for."""
    if "rising" in table.times:
        rising = [(at, row) for row, at in enumerate(table.times["rising"])]
        if not with_ends:
            return rising, []
        if "falling" not in table.times:
            raise TimelineError(
                f"{table.path}: expected the length of the exposures, found rising edges only; "
                "add --shutter 16ms, or the falling edges if they end the exposures"
            )
        ends = table.times["falling"]
        return rising, [end - at for (at, _), end in zip(rising, ends, strict=True)]
    if "time" not in table.times:
        raise TimelineError(
            f"{table.path}: expected a column time_us beside edge, found none; add it"
        )
    rising, lengths, opened = [], [], None
    for row, (at, cell) in enumerate(zip(table.times["time"], table.texts["edge"], strict=True)):
        word = cell.strip().lower()
        if word not in _UP | _DOWN:
            raise TimelineError(
                f"{table.name(row)}: expected rising or falling, 1 or 0, found {cell[:20]!r}; "
                "correct the column edge"
            )
        up = word in _UP
        if not with_ends:
            rising += [(at, row)] if up else []
        elif up and opened is not None:
            raise TimelineError(
                f"{table.name(row)}: expected a falling edge after the rising one of line "
                f"{table.lines[opened[1]]}, found another rising one; add --shutter 16ms if "
                "falling edges do not end the exposures"
            )
        elif up:
            opened = (at, row)
        elif opened is not None:
            rising.append(opened)
            lengths.append(at - opened[0])
            opened = None
        # A pulse that the log does not hold whole is no frame's exposure that is known.
    return rising, lengths


def _read(path: StrPath) -> _Table:
    """Read a table and find out what its columns hold."""
    try:
        text = read_file(path, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TimelineError(
            f"{path}: can't read the table of times, UTF-8 text ({reason}); check --times"
        ) from error
    head = text.partition("\n")[0].strip()
    if head.replace(" ", "").startswith(_ALIGNMENT_LOG):
        raise TimelineError(
            f"{path}: expected a table of times, found an alignment log; give it as --log"
        )
    delimiter = next((mark for mark in (";", "\t") if mark in head), ",")
    cells = csv.reader(io.StringIO(text), delimiter=delimiter)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in cells:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(cells.line_num)
    except csv.Error as error:
        raise TimelineError(f"{path}, line {cells.line_num}: {error}; correct the table") from error
    if len(rows) < 2:
        raise TimelineError(f"{path}: expected {EXPECTED}, found no rows; check --times")
    roles = _roles(path, rows[0])
    lines = lines[1:]
    table = _Table(path, lines, {}, {})
    for row, line in zip(rows[1:], lines, strict=True):
        if len(row) != len(rows[0]):
            raise TimelineError(
                f"{path}, line {line}: expected {counted(len(rows[0]), 'cell')} as in the first "
                f"line, found {len(row)}; correct the line"
            )
    for column, (role, unit) in roles.items():
        values = [row[column] for row in rows[1:]]
        if unit is None:
            table.texts[role] = values
            continue
        if delimiter == ";":
            values = [value.replace(",", ".") for value in values]
        what = [f"{path}, line {line}: {rows[0][column].strip()}" for line in lines]
        pairs = zip(values, what, strict=True)
        table.times[role] = [exact_duration(value, where, unit) for value, where in pairs]
    return table


def _roles(path: StrPath, header: Sequence[str]) -> dict[int, tuple[str, str | None]]:
    """Return what each column holds and its unit, by its number; columns of others are left out."""
    by_name = {name: role for role, names in _ROLES.items() for name in names}
    roles: dict[int, tuple[str, str | None]] = {}
    for column, cell in enumerate(header):
        match = _UNIT.fullmatch(cell.strip())
        name, unit = (match["name"], match["unit"].lower()) if match else (cell, None)
        role = by_name.get("_".join(re.findall(r"[a-z0-9]+", name.lower())))
        if role is None:
            continue
        if role in (before for before, _ in roles.values()):
            raise TimelineError(f"{path}: expected one column of {role}, found two; rename one")
        if role in _IN_TIME and unit is None:
            units = ", ".join(f"{cell.strip()}_{unit}" for unit in UNITS)
            raise TimelineError(
                f"{path}: expected a unit in the name of the column {cell.strip()!r}, found none; "
                f"call it {units}"
            )
        roles[column] = role, None if unit is None else unit.replace("µ", "u").replace("μ", "u")
    if not {role for role, _ in roles.values()} - {"file"}:
        found = ", ".join(cell.strip() for cell in header)[:80]
        raise TimelineError(f"{path}: expected {EXPECTED}, found {found!r}; name the columns so")
    return roles
