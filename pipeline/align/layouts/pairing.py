"""Files paired by the numbers in their names: a blurred frame, its sharp frame and its spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...frames.listing import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    FrameNameError,
    folder_names,
    list_frames,
    shorten,
)
from ...spikes.dat import SPIKE_SUFFIXES
from .contract import AlignmentError, FoundWindow


def index_frames(
    folder: Path,
    warnings: list[str],
    *,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    names: tuple[str, ...] | None = None,
    interpolated: bool = False,
    example: str | None = None,
) -> dict[int, Path]:
    """Return a folder's frames by number.

    Args:
        folder: may be missing.
        warnings: list that gets what is left out; see `FrameFiles.left_out`.
        suffixes: endings of the files that count, in lower case.
        names: the folder's files, where they are known; None: they are listed.
        interpolated: names are those of an interpolated sequence; see `listing`.
        example: a frame's name, for the message of a folder without frames; None: it may be empty.

    Raises:
        AlignmentError: two files have the same number, or none is there that must be.
    """
    try:
        listed = list_frames(folder, suffixes=suffixes, names=names, interpolated=interpolated)
    except FrameNameError as error:
        raise AlignmentError(str(error)) from error
    frames, left_out = listed.frames, listed.left_out()
    warnings += left_out
    if example is not None and not frames:
        raise AlignmentError(
            f"{folder}: expected images named by number, such as {example}, found "
            f"{shorten(left_out) or 'none'}; rename them"
        )
    return frames


def unread_arrays(folder: Path) -> list[str]:
    """Return a sentence about files beside spikes that may hold spikes too; none: there are none.

    Args:
        folder: may be missing.
    """
    names = [name for name in folder_names(folder) if name.lower().endswith(ARRAY_SUFFIXES)]
    if not names:
        return []
    return [
        f"{folder}: {shorten(names)}: not read by ending; left out (`spikedeblur convert` makes a "
        ".dat of spikes)"
    ]


STREAM = "spike"
"""Name, without ending, of one recording for a whole sequence."""


def is_stream_name(name: str) -> bool:
    """Whether a file's name is that of one recording for a whole sequence, such as spike.dat."""
    stem, _, suffix = name.lower().rpartition(".")
    return stem == STREAM and f".{suffix}" in SPIKE_SUFFIXES


def find_streams(*folders: Path) -> list[Path]:
    """Return the recordings for a whole sequence that lie in some folders."""
    return [
        folder / name for folder in folders for name in folder_names(folder) if is_stream_name(name)
    ]


def pair_frames(
    blurs: Mapping[int, Path],
    sharps: Mapping[int, Path],
    spikes: Mapping[int, Path],
    expected: str,
    centre: Callable[[int], int] | None = None,
) -> tuple[FoundWindow, ...]:
    """Return the windows of one sequence, its files paired by number.

    Args:
        blurs: blurred frames by number, at least one.
        sharps: sharp frames by number.
        spikes: spike files by number; a stream is there under every number.
        expected: where spikes were looked for, for the message.
        centre: number of the sharp frame in the middle of a blurred frame, from its number; None:
            the same.

    Raises:
        AlignmentError: a blurred frame without spikes.
    """
    missing = [blurs[n].name for n in sorted(blurs.keys() - spikes.keys())]
    if missing:
        folder = next(iter(blurs.values())).parent
        raise AlignmentError(f"{folder}: no spikes for {shorten(missing)}; expected {expected}")
    return tuple(
        FoundWindow(
            frame_index=n,
            centre=n if centre is None else centre(n),
            blur=blurs[n],
            sharp=sharps.get(n),
            spikes=spikes[n],
            sharps=sharps if centre is None else {},
        )
        for n in sorted(blurs)
    )


def leftovers(blurs: Mapping[int, Path], *others: Mapping[int, Path]) -> list[str]:
    """Return a warning for each file whose number no blurred frame has."""
    return [
        f"{path}: no blurred frame of this name; left out"
        for frames in others
        for n, path in sorted(frames.items())
        if n not in blurs
    ]
