"""What a layout says: which files of a data set belong together, before any spike is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ....errors import SpikeDeblurError
from ...clocks.exposures import Exposures
from ...frames.listing import shorten
from ...spikes.presets import SpikePreset


class AlignmentError(SpikeDeblurError):
    """A data set can't be aligned: something is missing, doubled or in disagreement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundWindow:
    """One blurred frame, its spikes and its sharp frame."""

    frame_index: int
    """Number in the file name; for interpolated names, see `exposure`."""
    centre: int
    """Number of the sharp frame in the exposure's middle."""
    blur: Path
    sharp: Path | None
    spikes: Path
    sharps: Mapping[int, Path] = field(default_factory=dict, repr=False)
    """All sharp frames of the sequence by number, where blurred frames have the numbers of the
    sharp ones in their middles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundSequence:
    """One recording, its files paired by number."""

    seq: str
    windows: tuple[FoundWindow, ...]
    """Windows in ascending order of `frame_index`; never empty."""
    exposure: int | None
    """Sharp frames that make a blurred one; None: `exposures` says it all, or the user must."""
    fps: float | None
    """Sharp frames a second by the layout's convention, in Hz; None: the user must say."""
    own_files: bool
    """Whether each window has a `.dat` of its own; else one stream holds all exposures."""
    exposures: Exposures | None = None
    """Exposure of each window by a camera's clock; None: `exposure` frames about each centre."""
    readout: float | None = None
    """Time from a frame's first row to its last one, in seconds, where the layout states it."""
    lead_samples: int = 0
    """Samples before the exposure in a window's own file."""
    tail_samples: tuple[int, ...] = (0,)
    """Samples after the exposure in a window's own file: each number that is allowed."""
    first: float = 0.0
    """Time of sample 0 of a stream without side file, in seconds."""
    preset: SpikePreset | None = None
    """Geometry, rate and gain that the data set's makers published, or a layout file states."""
    sensor: Path | None = None
    """File that says how the spike pixels differ, where a layout file states it."""
    spike_shape: tuple[int, int] | None = None
    """(H, W) of the spikes, where the data set states it without the row order."""
    spike_scale: int | None = None
    """Size of the blurred frame over that of the spikes, where the layout states it."""
    blur_kind: str | None = None
    """How the blurred frames were averaged, where the data set has several kinds."""
    scene: str | None = None
    """Name of what was filmed, where file names tell more than the middle parts of `seq`."""
    stated_in: str | None = None
    """Layout file that describes the data set; None: a layout of this package."""
    warnings: tuple[str, ...] = ()


class Layout(Protocol):
    """Reads one data set's folders: a `KnownLayout`, or a layout file."""

    NAME: str
    NEEDS: str
    """What must be in the data set's folder, for messages."""
    VARIANTS: tuple[str, ...]
    """Folders of which one is read, the usual one first; empty: there is no choice."""

    def find(
        self, root: Path, exposure: int | None, variant: str | None = None
    ) -> list[FoundSequence]:
        """Return all sequences of all splits, in order of `seq`.

        Args:
            root: the data set's folder.
            exposure: sharp frames that make a blurred one; None: the layout's own.
            variant: one of VARIANTS; None: the first that is there.

        Raises:
            AlignmentError: no sequence, or a blurred frame without spikes; names it.
        """


class KnownLayout(Layout, Protocol):
    """A module of this package, which can tell whether a folder is arranged so."""

    def recognise(self, root: Path) -> str | None:
        """Return what in `root` shows this layout; None: nothing does. Must be quick."""


def choose_variant(
    root: Path, folders: Sequence[Path], variants: tuple[str, ...], variant: str | None
) -> str:
    """Return the first variant that all folders hold, or the one that the user asks for.

    Raises:
        AlignmentError: a folder lacks it.
    """
    wanted = variants if variant is None else (variant,)
    for name in wanted:
        if all((folder / name).is_dir() for folder in folders):
            return name
    raise AlignmentError(
        f"{root}: expected {' or '.join(wanted)} in each of "
        f"{shorten([folder.name for folder in folders])}, one kind for all; complete them or move "
        "the others away"
    )


def in_order(
    root: Path, needs: str, sequences: Iterable[FoundSequence], warnings: Iterable[str] = ()
) -> list[FoundSequence]:
    """Return sequences in order of `seq`; the first takes the warnings that belong to none.

    Raises:
        AlignmentError: no sequence; names `needs`, what the layout needs in the folder `root`.
    """
    ordered = sorted(sequences, key=lambda sequence: sequence.seq)
    if not ordered:
        raise AlignmentError(f"{root}: expected {needs}, found none; give the folder that holds it")
    first, *others = ordered
    return [replace(first, warnings=(*first.warnings, *warnings)), *others]
