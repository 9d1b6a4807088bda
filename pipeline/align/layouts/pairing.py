"""Files paired by the numbers in their names: a blurred frame, its sharp frame and its spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...frames.listing import IMAGE_SUFFIXES, folder_names, shorten
from ..exposure import parse_frame_name
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
        warnings: list that gets a warning for each file whose name is no frame's.
        suffixes: endings of the files that count, in lower case.
        names: the folder's files, where they are known; None: they are listed.
        interpolated: names are those of an interpolated sequence; see `exposure`.
        example: a frame's name, for the message of a folder without frames; None: it may be empty.

    Raises:
        AlignmentError: two files have the same number, or none is there that must be.
    """
    frames: dict[int, Path] = {}
    for name in folder_names(folder) if names is None else names:
        stem, dot, suffix = name.rpartition(".")
        if (dot + suffix).lower() not in suffixes:
            continue
        number = parse_frame_name(stem, interpolated)
        if number is None:
            warnings.append(f"{folder / name}: not a frame's name; left out")
        elif number in frames:
            raise AlignmentError(
                f"{folder}: {frames[number].name} and {name} are both frame {number}; remove one"
            )
        else:
            frames[number] = folder / name
    if example is not None and not frames:
        raise AlignmentError(
            f"{folder}: expected images named by number, such as {example}, found "
            f"{shorten(warnings) or 'none'}"
        )
    return frames


def pair_frames(
    blurs: Mapping[int, Path],
    sharps: Mapping[int, Path],
    spikes: Mapping[int, Path],
    expected: str,
    centre: Callable[[int], int] = lambda number: number,
) -> tuple[FoundWindow, ...]:
    """Return the windows of one sequence, its files paired by number.

    Args:
        blurs: blurred frames by number, at least one.
        sharps: sharp frames by number.
        spikes: spike files by number; a stream is there under every number.
        expected: where spikes were looked for, for the message.
        centre: number of the sharp frame in the middle of a blurred frame, from its number.

    Raises:
        AlignmentError: a blurred frame without spikes.
    """
    missing = [blurs[n].name for n in sorted(blurs.keys() - spikes.keys())]
    if missing:
        folder = next(iter(blurs.values())).parent
        raise AlignmentError(f"{folder}: no spikes for {shorten(missing)}; expected {expected}")
    return tuple(
        FoundWindow(
            frame_index=n, centre=centre(n), blur=blurs[n], sharp=sharps.get(n), spikes=spikes[n]
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
