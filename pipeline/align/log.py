"""The alignment log: one row of text for each blurred frame, in the form that others use too.

    frame_idx,t0,t1,event_count,seq
    31,0.015000,0.047000,123456,val/Type1/TEST01_003_f0433

The key of a row is (seq, frame_idx). What five columns can't hold is in the manifest.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ...errors import SpikeDeblurError
from ..host.files import write_text
from ..host.reading import read_file
from ..spikes.bounds import MOST_SECONDS

HEADER = "frame_idx,t0,t1,event_count,seq"

_MOST_BYTES = 1 << 28
"""Most bytes of a log; a million rows have 50 million."""

_REMEDY = "correct the row, or write the log again with `spikedeblur align`"


class AlignmentLogError(SpikeDeblurError):
    """An alignment log can't be read, or a row can't be written to one."""


@dataclass(frozen=True, slots=True)
class AlignmentRow:
    """When one blurred frame was exposed."""

    frame_idx: int
    """Number of the frame, as in its file name."""
    t0: float
    """Start of the exposure, in seconds."""
    t1: float
    """End of the exposure, in seconds; it belongs to the exposure."""
    event_count: int
    """Spikes of all pixels in [t0, t1]."""
    seq: str
    """Name of the sequence, `<split>/<group>/<clip>`."""

    @property
    def key(self) -> tuple[str, int]:
        """What tells the row from all others of a log: (seq, frame_idx)."""
        return self.seq, self.frame_idx

    def __post_init__(self) -> None:
        if self.frame_idx < 0 or self.event_count < 0:
            raise AlignmentLogError(
                f"expected frame_idx and event_count of 0 or more, found {self.frame_idx} and "
                f"{self.event_count}"
            )
        if not -MOST_SECONDS <= self.t0 <= self.t1 <= MOST_SECONDS:
            raise AlignmentLogError(
                f"expected finite times with t0 <= t1, found t0 {self.t0} and t1 {self.t1}"
            )
        require_seq(self.seq)


def write_alignment_log(path: str | os.PathLike[str], rows: Iterable[AlignmentRow]) -> None:
    """Write a log atomically, its rows in order of `key`.

    Raises:
        AlignmentLogError: two rows have the same (seq, frame_idx).
    """
    write_text(path, format_alignment_log(rows))


def format_alignment_log(rows: Iterable[AlignmentRow]) -> str:
    """Return a log's text, the same for the same rows in any order.

    Raises:
        AlignmentLogError: two rows have the same (seq, frame_idx).
    """
    ordered = sorted(rows, key=lambda row: row.key)
    for before, row in itertools.pairwise(ordered):
        if before.key == row.key:
            raise AlignmentLogError(
                f"expected one row a frame, found frame {row.frame_idx} of {row.seq} twice"
            )
    lines = [HEADER]
    lines += [
        f"{row.frame_idx},{row.t0:.6f},{row.t1:.6f},{row.event_count},{row.seq}" for row in ordered
    ]
    return "\n".join(lines) + "\n"


def read_alignment_log(path: str | os.PathLike[str]) -> dict[tuple[str, int], AlignmentRow]:
    """Return a log's rows by (seq, frame_idx).

    Raises:
        AlignmentLogError: not a log, or a row that is malformed or there twice; names the line.
    """
    try:
        # utf-8-sig: a log that passed through a spreadsheet begins with a byte order mark.
        text = read_file(path, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AlignmentLogError(
            f"{path}: can't read the alignment log, UTF-8 text ({error}); write one with "
            "`spikedeblur align`"
        ) from error
    # Not splitlines(): it also splits at characters that a seq may hold.
    header, *lines = [line.removesuffix("\r") for line in text.split("\n")]
    if header != HEADER:
        raise AlignmentLogError(
            f"{path}: expected the header {HEADER!r}, found {header[:60]!r}; give an alignment "
            "log as `spikedeblur align` writes it"
        )
    rows: dict[tuple[str, int], AlignmentRow] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        row = _parse_row(line, f"{path}, line {number}")
        if row.key in rows:
            raise AlignmentLogError(
                f"{path}, line {number}: frame {row.frame_idx} of {row.seq} is there twice; "
                f"{_REMEDY}"
            )
        rows[row.key] = row
    return rows


@lru_cache(maxsize=65536)
def require_seq(seq: str) -> str:
    """Return `seq` if it can be a log row's name and a folder inside a store.

    Raises:
        AlignmentLogError: empty parts, `.`, `..`, backslashes or control characters.
    """
    parts = seq.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(
        ord(char) < 32 or char == "\\" or 0xD800 <= ord(char) < 0xE000 for char in seq
    ):
        raise AlignmentLogError(
            f"expected a sequence name such as val/Type1/TEST01_003_f0433, found {seq!r}"
        )
    return seq


_ROW = re.compile(r"([0-9]{1,18}),([^,]+),([^,]+),([0-9]{1,18}),(.+)", re.DOTALL)


def _parse_row(line: str, where: str) -> AlignmentRow:
    match = _ROW.fullmatch(line)
    if match is None:
        raise AlignmentLogError(f"{where}: expected {HEADER}, found {line[:80]!r}; {_REMEDY}")
    frame_idx, t0, t1, event_count, seq = match.groups()
    try:
        return AlignmentRow(int(frame_idx), float(t0), float(t1), int(event_count), seq)
    except AlignmentLogError as error:
        raise AlignmentLogError(f"{where}: {error}; {_REMEDY}") from error
    except ValueError as error:
        raise AlignmentLogError(
            f"{where}: expected times in seconds, found {t0[:20]!r} and {t1[:20]!r}; {_REMEDY}"
        ) from error
