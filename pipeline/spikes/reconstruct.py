"""Pictures from spikes without learning: TFP, TFI and spike-guided division (SDM).

TFP and TFI: Zhu, Dong, Huang, Tian, "A Retina-Inspired Sampling Method for Visual Texture
Reconstruction", ICME 2019. SDM: the spike-guided deblurring model of Chen et al., "Enhancing
Motion Deblurring in High-Speed Scenes with Spike Streams", NeurIPS 2023.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .clock import SpikeWindowError

Image = npt.NDArray[np.float32]


def tfp(spikes: npt.NDArray[np.uint8], gain: float = 1.0) -> Image:
    """Texture from playback: the mean rate of spikes in the window, divided by the gain.

    Args:
        spikes: (T, H, W) uint8 of 0/1.
        gain: spikes a sample at unit luminance.

    Returns:
        (H, W) float32 luminance; spikes a sample where `gain` is 1.
    """
    rate = spikes.sum(axis=0, dtype=np.uint32) / np.float32(len(spikes))
    return np.asarray(rate / np.float32(gain), np.float32)


def tfi(spikes: npt.NDArray[np.uint8], index: int, gain: float = 1.0) -> Image:
    """Texture from interval: one over the interval between the spikes around sample `index`.

    The interval runs from the last spike at or before `index` to the first one after it. Where
    one side has no spike, the interval is that of the nearest two spikes on the other side; a pixel
    with one spike gets the whole window as its interval, a pixel without any is black.

    Args:
        spikes: (T, H, W) uint8 of 0/1.
        index: sample in 0..T-1.
        gain: spikes a sample at unit luminance.

    Returns:
        (H, W) float32 luminance.

    Raises:
        SpikeWindowError: `index` outside the window.
    """
    n = len(spikes)
    if not 0 <= index < n:
        raise SpikeWindowError(f"expected an index inside 0:{n}, got {index}")
    shape = spikes.shape[1:]
    flat = spikes.reshape(n, -1)
    earlier, later = range(index, -1, -1), range(index + 1, n)
    before, after = _nearest(flat, earlier), _nearest(flat, later)
    interval = np.where((before != _NONE) & (after != _NONE), after - before, np.inf)
    interval[(before != _NONE) ^ (after != _NONE)] = n
    for lone, order, first in (
        (after == _NONE, earlier, before),
        (before == _NONE, later, after),
    ):
        pixels = np.flatnonzero(lone & (first != _NONE))
        second = _nearest(flat, order, pixels, first[pixels])
        two = second != _NONE
        interval[pixels[two]] = np.abs(first[pixels[two]] - second[two])
    return (1.0 / (gain * interval)).astype(np.float32).reshape(shape)


_NONE = -1


def _nearest(
    flat: npt.NDArray[np.uint8],
    order: range,
    pixels: npt.NDArray[np.intp] | None = None,
    beyond: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return each pixel's first sample in `order` that has a spike; `_NONE` where none has.

    Args:
        flat: (T, P) uint8 of 0/1.
        order: samples to look at, the nearest first.
        pixels: (n,) numbers of the pixels to look at; None: all.
        beyond: (n,) for each of these pixels, a sample that does not count.
    """
    left = np.arange(flat.shape[1]) if pixels is None else pixels
    nearest = np.full(len(left), _NONE, np.int64)
    place = np.arange(len(left))  # where in `nearest` the pixels left are
    for sample in order:
        fired = flat[sample, left] != 0
        if beyond is not None:
            fired &= beyond[place] != sample
        nearest[place[fired]] = sample
        left, place = left[~fired], place[~fired]
        if not len(left):
            break
    return nearest


def sdm(blur: Image, short: Image, exposure: Image, floor: float | Image = 1 / 255) -> Image:
    """Spike-guided deblurring: `blur * short / exposure`, with no learning.

    The ratio of the two spike images is enlarged bilinearly to the blurred frame's size.

    Args:
        blur: (H, W, 3) float32 in [0, 1].
        short: (h, w) luminance, TFP of a short window around the instant wanted; below 0, as a
            corrected pixel's may be, it counts as 0.
        exposure: (h, w) luminance, TFP of the whole exposure, in the same unit; also below 0.
        floor: added to both, in luminance, so that dark pixels keep the blurred colour; where
            pixels are uncertain, (h, w) of what each needs.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    short, exposure = (
        np.maximum(image, 0) + np.asarray(floor, np.float32) for image in (short, exposure)
    )
    ratio = short / exposure
    ratio = enlarge(ratio.astype(np.float32), blur.shape[:2])
    return np.asarray(np.clip(blur * ratio[..., None], 0.0, 1.0), np.float32)


def enlarge(image: Image, shape: tuple[int, int]) -> Image:
    """Return a float32 image (h, w) resized bilinearly to `shape`, pixel centres aligned."""
    if image.shape == tuple(shape):
        return image
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(image, np.float32))
    resized = picture.resize((shape[1], shape[0]), Pillow.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)
