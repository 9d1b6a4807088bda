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
from ..methods.contract import Method, restored_instants
from ..methods.make_method import make_method
from ..sequences.contract import STREAM, WindowSequence, sensor_of
from ..sequences.corrected import correct_sequences, correction
from ..sequences.kept import KeptSequence
from ..sequences.linear_frames import with_linear_frames
from ..sequences.recording import Recording, RecordingSequence
from ..sequences.stored import StoreSequence, open_store
from ..spikes import read_side_file, reconstruct, samples_per_bin
from ..spikes.between import Between, Cut, none_exposed
from ..spikes.clock import SpikeClock
from ..spikes.dat import SPIKE_SUFFIXES
from ..spikes.intervals import light_of_spikes
from ..spikes.parts import is_stream, open_stream
from ..spikes.sensor import PixelCorrection
from ..spikes.settings import AS_RECORDED, SpikeOptions, settle
from ..storage.locate import open_storage
from ..store.records import root_kind

Plane = npt.NDArray[np.float32]

MOST_SAMPLES = 2000
"""Longest window that is looked at, in samples."""

_AROUND = 200
"""Samples to each side in which TFI and light look for spikes."""

_LIGHT_BYTES = 128 * 2**20
"""Most bytes of spikes that a picture of light is made of."""

OF_SPIKES = ("spikes", "TFP", "TFI", "bin", "light")
"""Pictures that need nothing but spikes."""


class ViewError(SpikeDeblurError):
    """There is nothing here to look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewedClip:
    """A stretch of samples of one camera, perhaps with the frame that it belongs to."""

    samples: int
    """Number of samples."""
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
    restored: Callable[[int], Plane] | None = None
    """`restored(instant)` returns the frame (H, W, 3) that `path` restores at a sample; None: there
    is no blurred frame to restore."""
    begins: float | None = None
    """When the first sample was taken, in seconds on the recording's clock; None: not known."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The pictures that there are of it."""
        beside = {"path": self.restored, "blur": self.blur, "sharp": self.sharp}
        return (*OF_SPIKES, *(name for name, it in beside.items() if it is not None))


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
class Picture:
    """What there is to see around one instant, and of what it is made."""

    values: Plane
    """(h, w), or (H, W, 3) of the frames' pixels: light, of which 1 is white."""
    samples: tuple[int, int]
    """Samples [start, stop) that it is made of."""


def picture(clip: ViewedClip, kind: str, instant: int, length: int, bins: int) -> Picture:
    """Compute one of the pictures around an instant.

    Light is spikes a sample over the gain; where the gain is not known, over the rate that all but
    the brightest 0.5 % of the pixels stay below.

    Args:
        clip: the clip that is looked at.
        kind: one of `clip.kinds`.
        instant: index of a sample, 0 to samples - 1.
        length: length of the window of TFP and light, in samples.
        bins: K, number of bins into which the clip's samples are divided.

    Raises:
        ViewError: another kind.
        SpikeDeblurError: `path` can't work on the clip.
    """
    if kind not in clip.kinds:
        raise ViewError(f"expected a picture among {', '.join(clip.kinds)}, got {kind!r}")
    whole = (0, clip.samples)
    if kind in ("blur", "sharp"):
        frame = clip.blur if kind == "blur" else clip.sharp
        assert frame is not None, "it is among the kinds"
        return Picture(values=np.divide(frame, np.float32(255), dtype=np.float32), samples=whole)
    if kind == "path":
        assert clip.restored is not None, "it is among the kinds"
        return Picture(values=clip.restored(instant), samples=whole)
    if kind == "spikes":
        spikes = clip.spikes(instant, instant + 1)[0].astype(np.float32)
        return Picture(values=spikes, samples=(instant, instant + 1))
    start, stop = span(clip, instant, length)
    unit = clip.gain or _brightest(rates_in(clip, start, stop))
    if kind == "TFI":
        before, after = max(instant - _AROUND, 0), min(instant + _AROUND + 1, clip.samples)
        around = clip.spikes(before, after)
        values = reconstruct.tfi(around, instant - before, unit)
        return Picture(values=_of_equal_pixels(clip, values, unit), samples=(before, after))
    if kind == "bin":
        edges = np.concatenate([[0], np.cumsum(samples_per_bin(clip.samples, bins))])
        index = int(np.searchsorted(edges, instant, side="right")) - 1
        start, stop = int(edges[index]), int(edges[index + 1])
    elif kind == "light":
        height, width = clip.shape
        start, stop = span(clip, instant, min(length, max(_LIGHT_BYTES // (height * width), 1)))
        first = max(start - _AROUND, 0)
        around = clip.spikes(first, min(stop + _AROUND, clip.samples))
        light = light_of_spikes(around, 1, start - first, stop - start)[0]  # (h, w), in spikes
        rates = _of_equal_pixels(clip, light / np.float32(stop - start))
        return Picture(values=rates / np.float32(unit), samples=(start, stop))
    rates = rates_in(clip, start, stop)
    return Picture(values=np.asarray(rates / np.float32(unit), np.float32), samples=(start, stop))


def rates_in(clip: ViewedClip, start: int, stop: int) -> Plane:
    """Return spikes a sample (h, w) over samples [start, stop), as equal pixels would fire."""
    return _of_equal_pixels(clip, clip.rates(start, stop))


def _brightest(rates: Plane) -> float:
    return max(float(np.percentile(rates, 99.5)), 1e-6)


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
    is_spikes = path.suffix.lower() in SPIKE_SUFFIXES or options.geometry is not None
    if (path.is_file() and is_spikes) or (not path.exists() and is_stream(path)):
        return (_recording(path, options),)
    # From outside: a sequence has the same mark as its store.
    for root in reversed((path.resolve(), *path.resolve().parents)):
        if root.is_dir() and root_kind(open_storage(root)) in ("packed", "counts"):
            return _store(root, path, options)
    if is_stream(path) and not path.is_file():
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
        begins=settings.clock.first + begin / rate if settings.cut and rate else None,
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
    groups: list[ViewedGroup] = []
    outside: list[Between] = []
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
        shown, left_out = _between(sequence, options.between)
        outside += left_out
        if not shown:
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
    if not groups and options.between is not None and outside:
        raise ViewError(none_exposed(path, options.between, outside))
    if not groups:
        raise ViewError(
            f"{path}: expected a sequence of the store {root}, found none; check the path"
        )
    return tuple(groups)


def open_recording(recording: Recording) -> ViewedGroup:
    """Return the exposures of a recording, as `find_recording` brings it together."""
    sequence = RecordingSequence(recording, None)
    names = [exposure.path.name for exposure in recording.exposures]
    return ViewedGroup(
        name=str(recording.dat),
        clips=tuple(names),
        frames=("blur",),
        clip=partial(_window, sequence, recording.settings.rate),
    )


def _between(
    sequence: StoreSequence, between: Between | None
) -> tuple[tuple[int, ...], list[Between]]:
    """Return the windows of a sequence that lie wholly between two times, and exposures outside."""
    if between is None:
        return tuple(range(sequence.length)), []
    record = sequence.record
    clock = SpikeClock(rate=record.rate, first=record.first or 0.0, readout=record.readout or 0.0)
    cut = Cut(between, clock)
    times = list(zip(sequence.t0.tolist(), sequence.t1.tolist(), strict=True))
    held = tuple(i for i, window in enumerate(times) if cut.holds(*window))
    return held, [cut.around(*times[i]) for i in range(len(times)) if i not in held]


def _shown(sequence: StoreSequence, shown: Several[int], index: int) -> ViewedClip:
    return _window(sequence, sequence.record.rate, shown[index])


@lru_cache(maxsize=2)
def _window(sequence: WindowSequence, rate: float, window: int) -> ViewedClip:
    spikes = sequence.spikes(window)  # (samples, h, w)
    samples = len(spikes)
    return ViewedClip(
        samples=samples,
        shape=sequence.voxel_shape,
        rate=rate,
        gain=sequence.gain,
        spikes=lambda start, stop: spikes[start:stop],
        rates=lambda start, stop: reconstruct.tfp(spikes[start:stop]),
        sensor=sensor_of(sequence),
        blur=to_8_bits(sequence.blur(window, window + 1)[0]),
        sharp=to_8_bits(sequence.sharp(window, window + 1)[0]) if sequence.has_sharp else None,
        restored=_Restored(sequence, window, samples) if sequence.windows_are_raw else None,
        begins=float(sequence.t0[window]),
    )


class _Restored:
    """The frames that `path` restores of one exposure; what moves in it is found once."""

    def __init__(self, sequence: WindowSequence, window: int, samples: int) -> None:
        self._recorded, self._window, self._samples = sequence, window, samples
        self._method: Method | None = None

    def __call__(self, instant: int) -> Plane:
        """Return the frame (H, W, 3) at a sample, as light."""
        if self._method is None:
            self._method = make_method("path")
            self._sequence = KeptSequence(*with_linear_frames([self._recorded]))
        middle = (self._samples - 1) / 2
        time = (instant - middle) / self._samples if abs(instant - middle) >= 1 else 0.0
        times = sorted({0.0, time})
        wanted = [[i == self._window] * len(times) for i in range(self._sequence.length)]
        found = restored_instants(self._method, self._sequence, times, wanted)
        frame = next(frame for _, i, frame in found if times[i] == time)
        return np.divide(frame, np.float32(255), dtype=np.float32)
