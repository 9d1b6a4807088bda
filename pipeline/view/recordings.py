"""What can be looked at: a `.dat`, or the windows of a store, behind one contract.

Pictures are computed for a short window of samples at a time, so that a recording of any length
can be scrubbed through in bounded memory.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..sequences.contract import WindowSequence
from ..sequences.stored import StoreSequence, open_store
from ..spikes import SpikeFile, read_side_file, reconstruct, samples_per_bin
from ..spikes.settings import SpikeOptions, settle
from ..storage.locate import open_storage
from ..store.records import root_kind

Plane = npt.NDArray[np.float32]

MOST_SAMPLES = 2000
"""Of a window that is looked at, at once."""

_AROUND = 200
"""Samples to each side in which TFI looks for spikes."""


class ViewError(SpikeDeblurError):
    """There is nothing here to look at."""


class ViewedClip(Protocol):
    """A stretch of samples of one camera, perhaps with the frame that it belongs to."""

    name: str
    samples: int
    """How many there are."""
    shape: tuple[int, int]
    """(h, w), pixels."""

    @property
    def rate(self) -> float | None:
        """Samples a second, in Hz; None: not known."""

    @property
    def gain(self) -> float | None:
        """Spikes a sample at unit luminance; None: not known."""

    @property
    def blur(self) -> npt.NDArray[np.uint8] | None:
        """The blurred frame (H, W, 3); None: there is none."""

    @property
    def sharp(self) -> npt.NDArray[np.uint8] | None:
        """The sharp frame (H, W, 3); None: there is none."""

    def spikes(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return samples [start, stop) as (T, h, w) uint8 of 0/1, upright."""

    def rates(self, start: int, stop: int) -> Plane:
        """Return spikes a sample (h, w) over samples [start, stop)."""


@dataclass(frozen=True, slots=True)
class ViewedGroup:
    """Clips under one name: the windows of a sequence, or a recording."""

    name: str
    clips: Several[str]
    """Their names, in order."""
    sequence: WindowSequence | None
    file: FileClip | None

    @property
    def frames(self) -> tuple[str, ...]:
        """Which frames of the colour camera there are."""
        if self.sequence is None:
            return ()
        return ("blur", "sharp") if self.sequence.has_sharp else ("blur",)

    def clip(self, index: int) -> ViewedClip:
        """Return one of them."""
        if self.file is not None:
            return self.file
        assert isinstance(self.sequence, StoreSequence)
        return _window(self.sequence, index)


class FileClip:
    """A whole `.dat`."""

    blur = None
    sharp = None

    def __init__(self, file: SpikeFile, rate: float | None, gain: float | None) -> None:
        self.name = file.path.name
        self.samples = file.n_frames
        self.shape = file.geometry.shape
        self.rate = rate
        self.gain = gain
        self._file = file

    def spikes(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """See `ViewedClip`."""
        return self._file.read(start, stop)

    def rates(self, start: int, stop: int) -> Plane:
        """See `ViewedClip`."""
        return self._file.tfp(start, stop)


class WindowClip:
    """One exposure of a store of kind packed."""

    def __init__(self, sequence: StoreSequence, window: int) -> None:
        self.name = f"frame {sequence.frame_index[window]}"
        self.samples = int(sequence.samples[window])
        self.shape = sequence.voxel_shape
        self.rate = sequence.record.rate
        self.gain = sequence.gain
        self.blur = sequence.blur(window, window + 1)[0]
        self.sharp = sequence.sharp(window, window + 1)[0] if sequence.has_sharp else None
        self._spikes = sequence.spikes(window)  # (samples, h, w)

    def spikes(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """See `ViewedClip`."""
        return self._spikes[start:stop]

    def rates(self, start: int, stop: int) -> Plane:
        """See `ViewedClip`."""
        return reconstruct.tfp(self._spikes[start:stop])


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What there is to see around one instant; luminance, or spikes a sample without a gain."""

    spikes: npt.NDArray[np.uint8]
    """(h, w) of 0/1: the sample itself."""
    tfp: Plane
    tfi: Plane
    bin: Plane
    """The bin that the instant is in, as luminance."""
    bin_index: int
    bin_samples: tuple[int, int]
    rates: Plane
    """Spikes a sample over the window, (h, w)."""


def pictures(clip: ViewedClip, instant: int, length: int, bins: int) -> Pictures:
    """Compute what there is to see.

    Args:
        clip: what is looked at.
        instant: sample, 0 to samples - 1.
        length: samples of TFP's window around it; cut at the clip's ends.
        bins: K, into which the clip's samples are divided.
    """
    start, stop = span(clip, instant, length)
    rates = clip.rates(start, stop)
    gain = clip.gain or 1.0
    before, after = max(instant - _AROUND, 0), min(instant + _AROUND + 1, clip.samples)
    around = clip.spikes(before, after)
    edges = np.concatenate([[0], np.cumsum(samples_per_bin(clip.samples, bins))])
    index = int(np.searchsorted(edges, instant, side="right")) - 1
    a, b = int(edges[index]), int(edges[index + 1])
    return Pictures(
        spikes=around[instant - before],
        tfp=np.asarray(rates / np.float32(gain), np.float32),
        tfi=reconstruct.tfi(around, instant - before, gain),
        bin=np.asarray(clip.rates(a, b) / np.float32(gain), np.float32),
        bin_index=index,
        bin_samples=(a, b),
        rates=rates,
    )


def span(clip: ViewedClip, instant: int, length: int) -> tuple[int, int]:
    """Return the samples [start, stop) of a window around an instant, inside of the clip."""
    length = max(1, min(length, clip.samples, MOST_SAMPLES))
    start = min(max(instant - length // 2, 0), clip.samples - length)
    return start, start + length


def open_clips(
    path: Path, *, geometry: str | None = None, rate: float | None = None, gain: float | None = None
) -> tuple[ViewedGroup, ...]:
    """Open what `path` names.

    Args:
        path: a `.dat`, a folder that holds `spike.dat`, a store, or a sequence or split in one.
        geometry: of a `.dat`; None: its side file's.
        rate: of a `.dat`, in Hz; None: its side file's, or not known.
        gain: of a `.dat`; None: its side file's, or not known.

    Raises:
        ViewError: nothing of these; or a store of counts, which holds no spikes.
        SpikeDeblurError: a `.dat` without geometry, or a store that can't be read.
    """
    if (path / "spike.dat").is_file():
        path = path / "spike.dat"
    if path.is_file():
        return (_recording(path, geometry, rate, gain),)
    # From outside: a sequence says of itself what its store says.
    for root in reversed((path.resolve(), *path.resolve().parents)):
        if root.is_dir() and root_kind(open_storage(root)) in ("packed", "counts"):
            return _store(root, path)
    raise ViewError(
        f"{path}: expected a .dat, a folder with spike.dat, a store, or a sequence in one; found "
        f"{'none of these' if path.exists() else 'nothing'}; check the path"
    )


def _recording(
    path: Path, geometry: str | None, rate: float | None, gain: float | None
) -> ViewedGroup:
    side = read_side_file(path)
    options = SpikeOptions(geometry=geometry, rate=rate or 1.0, gain=gain)
    known = settle(str(path), options, side)
    file = SpikeFile.open(path, known.geometry)
    clip = FileClip(file, rate or (side.rate if side else None), known.gain)
    return ViewedGroup(str(path), (clip.name,), None, clip)


def _store(root: Path, path: Path) -> tuple[ViewedGroup, ...]:
    inside = path.resolve().relative_to(root).parts
    sequences = [
        sequence
        for sequence in open_store(root)
        if tuple(sequence.seq.split("/"))[: len(inside)] == inside
    ]
    if not sequences:
        raise ViewError(f"{path}: expected a sequence of the store {root}, found none; check it")
    for sequence in sequences:
        if not isinstance(sequence, StoreSequence) or not sequence.has_spikes:
            raise ViewError(
                f"{root}: expected spikes, found counts in bins; view the .dat, or voxelize again "
                "with --kind packed"
            )
    return tuple(
        ViewedGroup(one.seq, tuple(f"frame {i}" for i in one.frame_index), one, None)
        for one in sequences
    )


@lru_cache(maxsize=2)
def _window(sequence: StoreSequence, index: int) -> WindowClip:
    return WindowClip(sequence, index)
