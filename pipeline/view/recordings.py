"""What can be looked at: a `.dat`, or the windows of a store, in one form.

Pictures are computed from a short window of samples at a time, so that a recording of any length
can be scrubbed through in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..frames.images import to_8_bits
from ..sequences.contract import STREAM, sensor_of
from ..sequences.corrected import correct_sequences, correction
from ..sequences.stored import StoreSequence, open_store
from ..spikes import read_side_file, reconstruct, samples_per_bin
from ..spikes.between import Between, Cut
from ..spikes.clock import SpikeClock
from ..spikes.parts import is_stream, open_stream
from ..spikes.sensor import PixelCorrection
from ..spikes.settings import AS_RECORDED, SpikeOptions, settle
from ..storage.locate import open_storage
from ..store.records import root_kind

Plane = npt.NDArray[np.float32]

MOST_SAMPLES = 2000
"""Longest window that is looked at, in samples."""

_AROUND = 200
"""Samples to each side in which TFI looks for spikes."""


class ViewError(SpikeDeblurError):
    """There is nothing here to look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewedClip:
    """A stretch of samples of one camera, perhaps with the frame that it belongs to."""

    samples: int
    """Number of samples."""
    begin: int = 0
    """Sample of the recording at which the clip begins."""
    shape: tuple[int, int]
    """(h, w) of the spikes, in pixels."""
    rate: float | None
    """Samples a second, in Hz; None: not known."""
    gain: float | None
    """Spikes a sample at unit luminance; None: not known."""
    spikes: Callable[[int, int], npt.NDArray[np.uint8]]
    """`spikes(start, stop)` returns samples [start, stop) as (T, h, w) uint8 of 0/1, upright."""
    rates: Callable[[int, int], Plane]
    """`rates(start, stop)` returns spikes a sample (h, w) over samples [start, stop)."""
    sensor: PixelCorrection | None = None
    """How the pixels differ, which planes but that of single spikes correct; None: not known."""
    blur: npt.NDArray[np.uint8] | None = None
    """The blurred frame (H, W, 3); None: there is none."""
    sharp: npt.NDArray[np.uint8] | None = None
    """The sharp frame (H, W, 3); None: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewedGroup:
    """Clips under one name: the windows of a sequence, or a recording."""

    name: str
    clips: Several[str]
    """Names of the clips, in order."""
    frames: tuple[str, ...]
    """Which frames of the colour camera there are: blur, sharp."""
    clip: Callable[[int], ViewedClip]
    """`clip(index)` returns one of the clips."""
    finding: str | None = None
    """What `align` found to be wrong with the spikes; None: nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What there is to see around one instant; planes are (h, w).

    `tfp`, `tfi` and `bin` are luminance, or spikes a sample where the gain is not known.
    """

    spikes: npt.NDArray[np.uint8]
    """The sample itself, of 0/1."""
    tfp: Plane
    tfi: Plane
    bin: Plane
    """Mean of the bin that the instant is in."""
    bin_index: int
    bin_samples: tuple[int, int]
    """Samples [start, stop) of the bin."""
    window: tuple[int, int]
    """Samples [start, stop) of TFP's window."""
    rates: Plane
    """Spikes a sample over the window."""


def pictures(clip: ViewedClip, instant: int, length: int, bins: int) -> Pictures:
    """Compute what there is to see around an instant.

    Args:
        clip: the clip that is looked at.
        instant: index of a sample, 0 to samples - 1.
        length: length of TFP's window in samples.
        bins: K, number of bins into which the clip's samples are divided.
    """
    start, stop = span(clip, instant, length)
    rates = _of_equal_pixels(clip, clip.rates(start, stop))
    gain = clip.gain or 1.0
    before, after = max(instant - _AROUND, 0), min(instant + _AROUND + 1, clip.samples)
    around = clip.spikes(before, after)
    edges = np.concatenate([[0], np.cumsum(samples_per_bin(clip.samples, bins))])
    index = int(np.searchsorted(edges, instant, side="right")) - 1
    a, b = int(edges[index]), int(edges[index + 1])
    return Pictures(
        spikes=around[instant - before],
        tfp=np.asarray(rates / np.float32(gain), np.float32),
        tfi=_of_equal_pixels(clip, reconstruct.tfi(around, instant - before, gain), gain),
        bin=_of_equal_pixels(clip, clip.rates(a, b)) / np.float32(gain),
        bin_index=index,
        bin_samples=(a, b),
        window=(start, stop),
        rates=rates,
    )


def _of_equal_pixels(clip: ViewedClip, rates: Plane, gain: float = 1.0) -> Plane:
    """Return spikes a sample (h, w), over a gain, as equal pixels would have fired them."""
    return rates if clip.sensor is None else clip.sensor.corrected(rates, 1 / gain)


def span(clip: ViewedClip, instant: int, length: int) -> tuple[int, int]:
    """Return the samples [start, stop) of a window around an instant, inside the clip."""
    length = max(1, min(length, clip.samples, MOST_SAMPLES))
    start = min(max(instant - length // 2, 0), clip.samples - length)
    return start, start + length


def open_clips(path: Path, options: SpikeOptions = AS_RECORDED) -> tuple[ViewedGroup, ...]:
    """Open what `path` names.

    Args:
        path: a `.dat`, a folder that holds `spike.dat`, a store, or a sequence or split in one.
        options: what the user says about a `.dat`; its rate and gain need not be known. Of a store,
            windows that lie wholly between the times are shown.

    Raises:
        ViewError: nothing of these; or a store of counts, which holds no spikes.
        SpikeDeblurError: a `.dat` without geometry, or a store that can't be read.
    """
    if (path / STREAM).is_file():
        path = path / STREAM
    if path.is_file() or (not path.exists() and is_stream(path)):
        return (_recording(path, options),)
    # From outside: a sequence has the same mark as its store.
    for root in reversed((path.resolve(), *path.resolve().parents)):
        if root.is_dir() and root_kind(open_storage(root)) in ("packed", "counts"):
            return _store(root, path, options)
    if is_stream(path):
        return (_recording(path, options),)
    raise ViewError(
        f"{path}: expected a .dat, a folder with spike.dat, a store, or a sequence in one; found "
        f"{'none of these' if path.exists() else 'nothing'}; check the path"
    )


def _recording(path: Path, options: SpikeOptions) -> ViewedGroup:
    side = read_side_file(path)
    rate = options.rate or (side.rate if side else None)
    if options.between is not None and rate is None:
        raise ViewError(
            f"{path}: expected its rate, by which {options.between} is found in it; give --rate in "
            "Hz"
        )
    settings = settle(str(path), replace(options, rate=rate or 1.0), side)
    file = open_stream(path, settings.geometry, settings.cut)
    begin, end = file.whole
    clip = ViewedClip(
        samples=end - begin,
        begin=begin,
        shape=file.geometry.shape,
        rate=rate,
        gain=settings.gain,
        spikes=lambda start, stop: file.read(begin + start, begin + stop),
        rates=lambda start, stop: file.tfp(begin + start, begin + stop),
        sensor=None if settings.sensor is None else correction(settings.sensor, path, settings),
    )
    return ViewedGroup(name=str(path), clips=(path.name,), frames=(), clip=lambda index: clip)


def _store(root: Path, path: Path, options: SpikeOptions) -> tuple[ViewedGroup, ...]:
    inside = path.resolve().relative_to(root).parts
    groups, outside = [], []
    sequences = open_store(root)
    if options.sensor is not None:
        correct_sequences(sequences, options.sensor)
    for sequence in sequences:
        if tuple(sequence.seq.split("/"))[: len(inside)] != inside:
            continue
        if not isinstance(sequence, StoreSequence) or not sequence.has_spikes:
            raise ViewError(
                f"{root}: expected spikes, found counts in bins; view the .dat, or voxelize again "
                "with --kind packed"
            )
        shown = _between(sequence, options.between)
        if not shown:
            outside.append(sequence.seq)
            continue
        groups.append(
            ViewedGroup(
                name=sequence.seq,
                clips=tuple(f"frame {sequence.frame_index[i]}" for i in shown),
                frames=("blur", "sharp") if sequence.has_sharp else ("blur",),
                clip=partial(_shown, sequence, shown),
                finding=sequence.record.finding,
            )
        )
    if not groups and outside:
        raise ViewError(
            f"{path}: expected a frame that is exposed wholly in {options.between}, found none in "
            f"{outside[0]} and the others; give other times"
        )
    if not groups:
        raise ViewError(
            f"{path}: expected a sequence of the store {root}, found none; check the path"
        )
    return tuple(groups)


def _between(sequence: StoreSequence, between: Between | None) -> tuple[int, ...]:
    """Return the windows of a sequence that lie wholly between two times."""
    if between is None:
        return tuple(range(sequence.length))
    cut = Cut(between, SpikeClock(rate=sequence.record.rate))
    times = zip(sequence.t0.tolist(), sequence.t1.tolist(), strict=True)
    return tuple(i for i, window in enumerate(times) if cut.holds(*window))


def _shown(sequence: StoreSequence, shown: Several[int], index: int) -> ViewedClip:
    return _window(sequence, shown[index])


@lru_cache(maxsize=2)
def _window(sequence: StoreSequence, window: int) -> ViewedClip:
    spikes = sequence.spikes(window)  # (samples, h, w)
    return ViewedClip(
        samples=len(spikes),
        shape=sequence.voxel_shape,
        rate=sequence.record.rate,
        gain=sequence.gain,
        spikes=lambda start, stop: spikes[start:stop],
        rates=lambda start, stop: reconstruct.tfp(spikes[start:stop]),
        sensor=sensor_of(sequence),
        blur=to_8_bits(sequence.blur(window, window + 1)[0]),
        sharp=to_8_bits(sequence.sharp(window, window + 1)[0]) if sequence.has_sharp else None,
    )
