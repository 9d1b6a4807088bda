"""What commands print when they are done, and checks that several commands share."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, TextIO

import typer

from ..pipeline.host.reporter import duration

LogFormat = Literal["text", "json"]
"""Forms in which progress is printed."""

chosen_log_format: ContextVar[LogFormat] = ContextVar("log_format", default="text")
"""Value of --log-format."""

is_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether --quiet was given: no progress, notes and next command."""

typed: ContextVar[list[str]] = ContextVar("typed")
"""The command line, without the program's name."""

_began: ContextVar[float] = ContextVar("began")


def begin(*, quiet: bool) -> None:
    """Start the command's clock; with `quiet`, only its result is printed."""
    is_quiet.set(quiet)
    chosen_log_format.set("text")
    _began.set(time.monotonic())


def clean(text: str) -> str:
    """Return text without control characters, which would act on the terminal; lines stay apart.

    Names and values come from outside, and may hold anything.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


Label = Literal["error", "warning", "hint"]
_COLOURS: dict[Label, str] = {"error": "1;31", "warning": "1;33", "hint": "1;36"}


def say(text: str, *, err: bool = False, label: Label | None = None) -> None:
    """Print a cleaned text and the end of its line; nothing else of the commands prints text.

    Args:
        text: what to print.
        err: on stderr.
        label: what stands in front, in colour on a terminal.
    """
    stream = sys.stderr if err else sys.stdout
    print(_mark(label, stream) + clean(text), file=stream, flush=True)


def _mark(label: Label | None, stream: TextIO) -> str:
    """Return a label with its colon; without colours by NO_COLOR, or where there is no terminal."""
    if label is None:
        return ""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not stream.isatty()
    # An older console of Windows would show the codes themselves.
    if plain or (os.name == "nt" and "WT_SESSION" not in os.environ):
        return f"{label}: "
    return f"\x1b[{_COLOURS[label]}m{label}:\x1b[0m "


def note(text: str) -> None:
    """Print on stderr what is good to know, but not with --quiet."""
    if not is_quiet.get():
        say(text, err=True)


def report(summary: Any, text: str, *, json: bool, next_command: str | None = None) -> None:
    """Print a dataclass as JSON; or `text`, the time that it took, and the next command."""
    if json:
        print_json(summary)
        return
    say(text)
    say_next(next_command)


def print_json(value: Any) -> None:
    """Print a dataclass, or plain values that may hold some, as JSON."""

    def plain(part: Any) -> Any:
        return dataclasses.asdict(part) if dataclasses.is_dataclass(type(part)) else str(part)

    say(json.dumps(value, indent=2, default=plain))


def say_next(command: str | None) -> None:
    """Print the time that the command took, and the command that would come next.

    `SPIKEDEBLUR_HINTS=off`, or a caller that runs the stages (see `to_go_on`), leaves it out.
    """
    if is_quiet.get():
        return
    began = _began.get(None)
    if began is not None:
        say(f"Took {duration(time.monotonic() - began)}")
    hidden = os.environ.get("SPIKEDEBLUR_HINTS") == "off" or _caller() is not None
    if command is not None and not hidden:
        say(f"Next: {command}")


def to_go_on(command: str) -> str:
    """Return what to type so that stopped work goes on: `command`, or what the caller says.

    A program that runs the stages names itself in `SPIKEDEBLUR_CALLER`, as `make all` does.
    """
    return _caller() or command


def _caller() -> str | None:
    return os.environ.get("SPIKEDEBLUR_CALLER") or None


def command_line(*words: str | Path) -> str:
    """Return a command line of this program with these words, quoted for a shell."""
    # A path such as -x would be taken for an option.
    plain = (f"./{w}" if isinstance(w, Path) and str(w).startswith("-") else str(w) for w in words)
    return shlex.join((*_program(), *plain))


def _program() -> list[str]:
    """Return what this program is called by: its name, if the shell finds it by that."""
    called = Path(sys.argv[0])
    if called == Path(__file__).parents[1] / "__main__.py" and shutil.which("spikedeblur") is None:
        return [sys.executable, "-m", "spikedeblur"]
    if called.name == "spikedeblur" and shutil.which("spikedeblur") is None:
        return [sys.argv[0]]
    return ["spikedeblur"]


def free_name(path: Path) -> Path:
    """Return a path that is free: this one, or with -2, -3 and so on behind it."""
    tried = (path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 1000)))
    return next((one for one in tried if not one.exists()), path)


def store_beside(root: Path) -> Path:
    """Return the name of the store that a next command makes of a data set."""
    return root.with_name(f"{root.name}.zarr") if root.name else Path("store.zarr")


def require_writable(*paths: Path | None) -> None:
    """Refuse places where nothing can be written, before the work whose product goes there.

    Whether what is there already may be replaced is the command's to say; a file is replaced by a
    new one that is written beside it.

    Raises:
        OSError: the nearest folder that is there is read-only, or it isn't one.
    """
    for path in filter(None, paths):
        if path.exists() and not (path.is_dir() or path.is_file()):
            continue  # a device or pipe
        above = next(one for one in path.absolute().parents if one.exists())
        folder = path.absolute() if path.is_dir() else above
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not os.access(folder, os.W_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            reason = errno.EROFS if read_only else errno.EACCES
            raise OSError(reason, os.strerror(reason), str(folder))


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Return (height, width) of an option's `HxW`; anything else is refused (exit code 2)."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if match is None:
        raise typer.BadParameter(
            f"expected HxW, got {text}; give pixels, such as 128x128", param_hint=option
        )
    return int(match[1]), int(match[2])


def print_table(rows: Sequence[Sequence[str]], *, title: str = "", has_total: bool = False) -> None:
    """Print rows in columns, the first row as heading; numbers to the right.

    Where they don't fit side by side, several numbers of a cell stand below each other.

    Args:
        rows: cells of the heading, then of each row.
        title: what stands above.
        has_total: whether a line sets the last row apart.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # A file or pipe has no width of its own, and 80 columns would cut sequences' names.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    console = Console(width=width, markup=True, highlight=False)
    heading, *body = rows
    table = Table(
        title=_cell(title) or None,
        title_justify="left",
        box=box.SIMPLE,
        show_edge=False,
    )
    longest = (max(len(row[i]) for row in rows) for i in range(len(heading)))
    between = "\n" if sum(longest) + 3 * len(heading) - 1 > console.width else " / "
    for i, name in enumerate(heading):
        numeric = all(_is_number(row[i]) for row in body)
        table.add_column(_cell(name), justify="right" if numeric else "left", overflow="fold")
    for row in body:
        if has_total and row is body[-1]:
            table.add_section()
        table.add_row(
            *(
                _cell(cell).replace(" / ", between) if _is_number(cell) else _cell(cell)
                for cell in row
            )
        )
    console.print(table)


def _cell(text: str) -> str:
    return clean(text).replace("[", r"\[")


def _is_number(cell: str) -> bool:
    """Whether a cell is empty, a dash, a number, or several with slashes between."""
    number = r"[-+]?[\d,]*\.?\d+"
    return re.fullmatch(rf"{number}( / {number})*|-|", cell) is not None
