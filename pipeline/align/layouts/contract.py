"""What a layout gives: which files of a data set belong together. No times, no spikes read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ....errors import SpikeDeblurError
from ...frames.listing import shorten
from ...spikes.presets import SpikePreset
from ..exposure import parse_frame_name


class AlignmentError(SpikeDeblurError):
    """A data set can't be aligned: something is missing, doubled or in disagreement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundWindow:
    """One blurred frame and its partners."""

    frame_index: int
    """The number in the file name; for interpolated names, see `exposure`."""
    centre: int
    """Number of the sharp frame in the exposure's middle, on the sequence's own time axis."""
    blur: Path
    sharp: Path | None
    spikes: Path
    times: tuple[float, float] | None = None
    """(t0, t1) in seconds where the layout states them; None: `exposure` frames about `centre`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSequence:
    """One recording, its files paired by name."""

    seq: str
    windows: tuple[FoundWindow, ...]
    """By frame_index, ascending; never empty."""
    exposure: int | None
    """Sharp frames that make a blurred one; None: each window states its times."""
    fps: float | None
    """Sharp frames a second by the layout's own convention; None: the user must say."""
    own_files: bool
    """True: each window has a `.dat` of its own."""
    lead_samples: int = 0
    """With own files: how many samples come before the exposure."""
    tail_samples: tuple[int, ...] = (0,)
    """With own files: how many samples may follow the exposure."""
    first: float = 0.0
    """Time in seconds of a stream's sample 0, where no side file says it."""
    preset: SpikePreset | None = None
    """Geometry, rate and gain that the data set's makers published, or its layout file states."""
    spike_shape: tuple[int, int] | None = None
    """(H, W) that the data set's own side file states without the row order."""
    spike_scale: int | None = None
    """Size of the blurred frame over that of the spikes, where the layout states it."""
    blur_kind: str | None = None
    """Which of the data set's ways to average frames this is; None: it has one."""
    scene: str | None = None
    """What was filmed, where names tell more than seq's middle parts do."""
    warnings: tuple[str, ...] = ()


class Layout(Protocol):
    """Reads one data set's folders: a module of this package, or a layout file."""

    NAME: str
    NEEDS: str
    """What must be in the root, for messages."""
    VARIANTS: tuple[str, ...]
    """Folders of which one is read, the usual one first; empty: there is no choice."""

    def recognise(self, root: Path) -> str | None:
        """Return what in `root` shows this layout, or None; must be quick."""

    def find(
        self, root: Path, exposure: int | None, variant: str | None = None
    ) -> list[FoundSequence]:
        """Return all sequences, by seq.

        Args:
            root: the data set's folder.
            exposure: sharp frames a blurred one; None: the layout's own.
            variant: one of VARIANTS; None: the first that is there.

        Raises:
            AlignmentError: nothing there, or a blurred frame without spikes; names it.
        """


def index_frames(
    folder: Path,
    names: tuple[str, ...],
    suffixes: tuple[str, ...],
    *,
    interpolated: bool = False,
    parse: Callable[[str, bool], int | None] = parse_frame_name,
) -> tuple[dict[int, Path], list[str]]:
    """Return ({number: path}, warnings) of a folder's frames.

    Raises:
        AlignmentError: two files have the same number.
    """
    frames: dict[int, Path] = {}
    warnings = []
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if (dot + suffix).lower() not in suffixes:
            continue
        number = parse(stem, interpolated)
        if number is None:
            warnings.append(f"{folder / name}: not a frame's name; left out")
        elif number in frames:
            raise AlignmentError(
                f"{folder}: {frames[number].name} and {name} are both frame {number}; remove one"
            )
        else:
            frames[number] = folder / name
    return frames, warnings


def pair_frames(
    blurs: Mapping[int, Path],
    sharps: Mapping[int, Path],
    spikes: Mapping[int, Path],
    expected: str,
    centre: Callable[[int], int] = lambda number: number,
) -> tuple[FoundWindow, ...]:
    """Return the windows of one sequence, its files paired by number.

    Args:
        blurs: by number, at least one.
        sharps: by number.
        spikes: by number; one stream is there under every number.
        expected: where spikes were looked for, for the message.
        centre: a blurred frame's middle on the time axis, from its number.

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
            centre=centre(n),
            blur=blurs[n],
            sharp=sharps.get(n),
            spikes=spikes[n],
        )
        for n in sorted(blurs)
    )


def leftovers(blurs: Mapping[int, Path], *others: Mapping[int, Path]) -> list[str]:
    """Return a warning for each file of a number that no blurred frame has."""
    return [
        f"{path}: no blurred frame of this name; left out"
        for frames in others
        for n, path in sorted(frames.items())
        if n not in blurs
    ]
