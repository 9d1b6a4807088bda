"""Methods without learning: the blurred frame, TFP, TFI and SDM.

The short window of tfp and sdm is as wide as a number of bins, and symmetric in time about the
exposure's middle, which is sample (N_samples - 1) / 2. With an even K the middle lies between
two bins, so a window 1 bin wide takes half of each. Where K does not divide the number of samples,
bins hold unequal numbers of them, so each counts by its share of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..frames.images import to_unit
from ..sequences.contract import WindowSequence, sensor_of
from ..spikes import reconstruct, samples_per_bin
from .contract import Frames, Method, MethodClip, MethodError, gain_of, require_raw

SHORT_BINS = (1, 3, 5, 7, 9)
"""Widths that `evaluate` chooses from for tfp and sdm."""

DEFAULT_SHORT_BINS = 5
"""Width of the short window where none is given, in bins of 32 an exposure: the best on natural
scenes at an exposure of 33 frames."""


class BlurMethod(Method):
    """The blurred frame, untouched."""

    name = "blur"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return the blurred frame."""
        return _blurred(windows, clip.start)[None]


@dataclass(frozen=True)
class TfpMethod(Method):
    """Texture from playback over a short window, enlarged bilinearly, on three channels."""

    name = "tfp"
    clip_len = 1

    short_bins: int = DEFAULT_SHORT_BINS
    """Width of the short window, in bins."""

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return luminance on three channels."""
        short, _ = _short_and_whole(windows, clip.start, self.short_bins)
        return _as_rgb(short, windows.frame_shape)


class TfiMethod(Method):
    """Texture from interval at the exposure's middle, enlarged bilinearly, on three channels."""

    name = "tfi"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return luminance on three channels."""
        spikes = windows.spikes(clip.start)  # (samples, h, w)
        # The middle of an even number lies between two samples, and so does this interval's.
        image = reconstruct.tfi(spikes, (len(spikes) - 1) // 2)
        rate = spikes.mean(axis=0, dtype=np.float32)
        sensor = sensor_of(windows)
        if sensor is not None:  # an interval tells a rate, which is a pixel's own
            image, rate = (sensor.corrected(plane, 1) for plane in (image, rate))
        return _as_rgb(image / gain_of(windows, clip.start, rate), windows.frame_shape)


@dataclass(frozen=True)
class SdmMethod(Method):
    """Spike-guided division: blur times short TFP over exposure TFP."""

    name = "sdm"
    clip_len = 1

    short_bins: int = DEFAULT_SHORT_BINS
    """Width of the short window, in bins."""

    def __call__(self, windows: WindowSequence, clip: MethodClip) -> Frames:
        """Return the blurred frame, divided where the spikes say that light moved."""
        blur = _blurred(windows, clip.start)
        short, exposure = _short_and_whole(windows, clip.start, self.short_bins)
        sensor = sensor_of(windows)
        if sensor is None:
            return reconstruct.sdm(blur, short, exposure)[None]
        # In the dark, a ratio of what is left of a hot pixel's spikes would be chance.
        samples = int(windows.samples[clip.start])
        noise = sensor.noise(samples * self.short_bins / windows.bins)
        rate = windows.voxels(clip.start, clip.start + 1)[0].sum(axis=0) / np.float32(samples)
        uncertain = noise / gain_of(windows, clip.start, rate)
        return reconstruct.sdm(blur, short, exposure, np.float32(1 / 255) + uncertain)[None]


def centre_weights(samples: int, bins: int, short_bins: int) -> npt.NDArray[np.float64]:
    """Return the share of each bin's samples that lies in the short window around the middle.

    Sample j of N covers [j, j + 1), so the middle is at N / 2, and the window reaches
    `short_bins` N / K / 2 to each side of it.

    Args:
        samples: N, number of samples in the exposure.
        bins: K, number of bins in the exposure.
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


def _short_and_whole(
    windows: WindowSequence, window: int, short_bins: int
) -> tuple[Frames, Frames]:
    """Return luminance (h, w) in the short window and in the whole exposure."""
    require_raw(windows, "tfp and sdm")
    counts = windows.voxels(window, window + 1)[0]  # (K, h, w)
    samples = int(windows.samples[window])
    weights = centre_weights(samples, windows.bins, short_bins)
    inside = np.flatnonzero(weights)
    in_short = np.tensordot(weights[inside].astype(np.float32), counts[inside], axes=1)
    short = in_short / np.float32(weights @ samples_per_bin(samples, windows.bins))
    whole = np.float32 if counts.dtype == np.float32 else np.uint32
    exposure = counts.sum(axis=0, dtype=whole) / np.float32(samples)
    exposure = exposure.astype(np.float32)
    gain = gain_of(windows, window, exposure)
    return short.astype(np.float32) / gain, exposure / gain


def _blurred(windows: WindowSequence, window: int) -> Frames:
    """Return a blurred frame (H, W, 3) in [0, 1]."""
    return to_unit(windows.blur(window, window + 1)[0])


def _as_rgb(image: Frames, shape: tuple[int, int]) -> Frames:
    """Return luminance (h, w), enlarged bilinearly, as (1, H, W, 3)."""
    large = reconstruct.enlarge(np.asarray(image, np.float32), shape)
    return np.repeat(large[None, ..., None], 3, axis=-1)
