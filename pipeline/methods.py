"""Ways to a sharp frame, all behind one contract that `evaluate` and `restore` share.

    blur     the blurred frame itself: what any method must beat
    tfp      luminance from a short window of spikes around the exposure's middle, on 3 channels
    tfi      luminance from the interval between the spikes around the middle, on 3 channels
    sdm      blur times short TFP over exposure TFP: no learning
    path     blur made sharp along the motion that the spikes show: no learning, needs torch
    model    a trained network, on clips of several exposures

Letters in shapes: N windows of a sequence, T windows of a clip, K bins, H and W the frames'
pixels, h and w the spikes'.

The short window of tfp and sdm is as wide as a number of bins, and symmetric in time about the
exposure's middle, which is sample (N_samples - 1) / 2. With an even K the middle lies between
two bins, so a window 1 bin wide takes half of each; bins hold unequal numbers of samples where
K does not divide them, so each counts by its share of the samples, not of the bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..errors import SpikeDeblurError
from .metrics import to_uint8, to_uint16
from .spikes import reconstruct, samples_per_bin
from .spikes.camera import luminance
from .store.sequence import SpikeWindows, WindowSequence, has_spikes

Frames = npt.NDArray[np.float32]

METHODS = ("blur", "tfp", "tfi", "sdm", "path", "model")

SHORT_BINS = (1, 3, 5, 7, 9)
"""Widths that `evaluate` chooses from for tfp and sdm."""

DEFAULT_SHORT_BINS = 5
"""Of 32: the best on natural scenes at an exposure of 33 frames."""


class MethodError(SpikeDeblurError):
    """A method can't work on what it is given."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Windows [start, stop) seen together, of which [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Method(Protocol):
    """Turns windows of one sequence into sharp frames."""

    @property
    def name(self) -> str:
        """One of `METHODS`."""

    @property
    def clip_len(self) -> int:
        """Windows that it sees together."""

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the kept windows' frames (T, H, W, 3) float32 RGB, about in [0, 1].

        Raises:
            MethodError: the sequence lacks what the method needs.
        """


def restored_frames(
    method: Method,
    windows: WindowSequence,
    wanted: Callable[[int], bool] = lambda window: True,
    bits: Literal[8, 16] = 8,
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield (window, frame (H, W, 3)) in order; clips with no wanted window are skipped.

    Frames are uint8, or with 16 `bits` uint16; the whole range is light from 0 to 1.
    """
    rounded = to_uint8 if bits == 8 else to_uint16
    for clip in plan_clips(windows.length, method.clip_len):
        kept = range(clip.keep_start, clip.keep_stop)
        if not any(wanted(window) for window in kept):
            continue
        frames = method(windows, clip)
        for window, frame in zip(kept, frames, strict=True):
            if wanted(window):
                yield window, rounded(frame)


def plan_clips(windows: int, clip_len: int) -> list[Clip]:
    """Return overlapping clips that keep each of the windows once.

    Clips advance by half their length, rounded up; the last one ends with the sequence. Of a
    window's results the one is kept in whose clip it lies nearest to the middle, where it has
    neighbours on both sides; of two equally near, the earlier clip's. A sequence shorter than a
    clip is one clip.
    """
    if windows <= clip_len:
        return [Clip(0, windows, 0, windows)]
    last = windows - clip_len
    starts = [*range(0, last, (clip_len + 1) // 2), last]
    # The last of the windows that are at least as near to clip a's middle as to clip b's.
    borders = [(a + b + clip_len - 1) // 2 + 1 for a, b in itertools.pairwise(starts)]
    return [
        Clip(start, start + clip_len, keep_start, keep_stop)
        for start, keep_start, keep_stop in zip(
            starts, [0, *borders], [*borders, windows], strict=True
        )
    ]


class BlurMethod:
    """The blurred frame, untouched."""

    name = "blur"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the blurred frame."""
        return _blurred(windows, clip.start)[None]


class TfpMethod:
    """Texture from playback over a short window, enlarged bilinearly, on three channels."""

    name = "tfp"
    clip_len = 1

    def __init__(self, short_bins: int = DEFAULT_SHORT_BINS) -> None:
        self.short_bins = short_bins

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return luminance on three channels."""
        short, exposure = _rates(windows, clip.start, self.short_bins)
        gain = gain_of(windows, clip.start, exposure)
        return _as_rgb(short / gain, windows.frame_shape)


class TfiMethod:
    """Texture from interval at the exposure's middle, enlarged bilinearly, on three channels."""

    name = "tfi"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return luminance on three channels."""
        if not has_spikes(windows):
            raise MethodError(
                f"{windows.seq}: TFI needs the instants of single spikes, and here are only "
                "counts in bins; use tfp, or `spikedeblur restore --method tfi` on the .dat"
            )
        spikes = cast(SpikeWindows, windows).spikes(clip.start)  # (samples, h, w)
        # An even number has its middle between two samples, as has the interval around this one.
        image = reconstruct.tfi(spikes, (len(spikes) - 1) // 2)
        rate = spikes.mean(axis=0, dtype=np.float32)
        return _as_rgb(image / gain_of(windows, clip.start, rate), windows.frame_shape)


class SdmMethod:
    """Spike-guided division: blur times short TFP over exposure TFP."""

    name = "sdm"
    clip_len = 1

    def __init__(self, short_bins: int = DEFAULT_SHORT_BINS) -> None:
        self.short_bins = short_bins

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the blurred frame, divided where the spikes say that light moved."""
        short, exposure = _rates(windows, clip.start, self.short_bins)
        gain = gain_of(windows, clip.start, exposure)
        blur = _blurred(windows, clip.start)
        return reconstruct.sdm(blur, short / gain, exposure / gain)[None]


def centre_weights(samples: int, bins: int, short_bins: int) -> npt.NDArray[np.float64]:
    """Return what share of each bin's samples lies in the short window around the middle.

    Sample j of N covers [j, j + 1), so the middle is at N / 2, and the window reaches
    `short_bins` N / K / 2 to each side of it.

    Args:
        samples: N, in the exposure.
        bins: K.
        short_bins: width of the window in mean bins; at most K.

    Returns:
        (K,) float64 in [0, 1]; zero outside the window.

    Raises:
        MethodError: a width below 1 or above K.
    """
    if not 1 <= short_bins <= bins:
        raise MethodError(f"expected a short window of 1 to {bins} bins, got {short_bins}")
    per_bin = samples_per_bin(samples, bins)
    stops = np.cumsum(per_bin).astype(np.float64)
    reach = short_bins * samples / bins / 2
    inside = np.minimum(stops, samples / 2 + reach) - np.maximum(
        stops - per_bin, samples / 2 - reach
    )
    return np.asarray(np.clip(inside, 0.0, None) / per_bin, np.float64)


def _rates(windows: WindowSequence, window: int, short_bins: int) -> tuple[Frames, Frames]:
    """Return spikes a sample (h, w) in the short window and in the whole exposure."""
    require_raw(windows, "tfp and sdm")
    counts = windows.voxels(window, window + 1)[0]  # (K, h, w)
    samples = int(windows.samples[window])
    weights = centre_weights(samples, windows.bins, short_bins)
    inside = np.flatnonzero(weights)
    in_short = np.tensordot(weights[inside].astype(np.float32), counts[inside], axes=1)
    short = in_short / np.float32(weights @ samples_per_bin(samples, windows.bins))
    exposure = counts.sum(axis=0, dtype=np.uint32) / np.float32(samples)
    return short.astype(np.float32), exposure.astype(np.float32)


def require_raw(windows: WindowSequence, names: str) -> None:
    """Refuse voxels of which log1p is taken.

    Raises:
        MethodError: names the sequence.
    """
    if not windows.windows_are_raw:
        raise MethodError(
            f"{windows.seq}: {names} need raw counts, and these voxels have log1p done; "
            "count the spikes anew with `voxelize`, or evaluate blur and model only"
        )


def gain_of(windows: WindowSequence, window: int, rate: Frames) -> np.float32:
    """Return spikes a sample at unit luminance; where unknown, as the blurred frame shows it.

    Over the exposure, spikes and blurred frame saw the same light, so the gain is the mean rate
    over the mean luminance.
    """
    if windows.gain is not None:
        return np.float32(windows.gain)
    light = float(luminance(windows.blur(window, window + 1)).mean())
    spikes = float(rate.mean())
    return np.float32(spikes / light if spikes > 0 and light > 0 else 1.0)


def _blurred(windows: WindowSequence, window: int) -> Frames:
    """Return a blurred frame (H, W, 3) in [0, 1]."""
    return np.asarray(windows.blur(window, window + 1)[0] / np.float32(255), np.float32)


def _as_rgb(image: Frames, shape: tuple[int, int]) -> Frames:
    """Return luminance (h, w), enlarged bilinearly, as (1, H, W, 3)."""
    large = reconstruct.enlarge(np.asarray(image, np.float32), shape)
    return np.repeat(large[None, ..., None], 3, axis=-1)
