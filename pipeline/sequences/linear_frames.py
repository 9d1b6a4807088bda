"""Frames of sRGB as linear light, which spikes count and blur averages.

Methods compare frames with spikes in proportion, and take a blurred frame for a mean. Codes of sRGB
are neither, so they are decoded before anything is computed of them, and what is restored is
encoded again. Where nobody says which they are, the spikes tell.

`contract` explains the letters in shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..frames.images import RGB, DeepRGB, FrameType, to_8_bits, to_unit
from ..frames.srgb import codes_of_light, decode_srgb, encode_srgb, light_of_codes
from ..spikes.camera import luminance
from ..storage.base import StoreError
from ..storage.side_by_side import together
from .contract import Box, FrameKind, KnownSamples, WindowSequence
from .grid import in_frame_grid, is_registered
from .seen_through import SeenThrough

FrameCurve = Literal["linear", "srgb"]
"""How the numbers of frames follow light: in proportion, or as codes of sRGB."""
FRAME_CURVES: tuple[FrameCurve, ...] = get_args(FrameCurve)

DARKEST = 0.5 / 255
"""Value up to which a frame is black."""
BRIGHTEST = {"uint8": 253.5 / 255, "uint16": 0.999}
"""Value from which on a frame may be clipped, by its type; 16 bits may hold 12, shifted."""
SURE = 0.6
"""Error of light decoded from sRGB, over that of light in proportion, below which frames are taken
as sRGB. Noise and equal brightness make it 1, clean spikes less than 0.3 where frames are sRGB."""
MOST_TOLD = 16
"""Most sequences of a data set that are read, where they agree, to tell what all its frames are."""
FEWEST = 64
"""Fewest spike pixels, within the frame's range, that tell it."""

_LIT = 0.1  # least luminance that tells: darker light is mostly noise
_FULL = 0.9  # spikes a sample, from which on a pixel may be saturated
_GROUPS = 16  # of pixels that are about equally bright, in which noise of spikes averages out
_EVEN = 0.02  # difference in luminance up to which groups tell nothing


class LinearFrames(SeenThrough):
    """A sequence whose frames, which are sRGB, are read as linear light of 16 bits."""

    frame_curve: FrameCurve = "srgb"
    frame_dtype = "uint16"

    def __init__(self, sequence: WindowSequence) -> None:
        super().__init__(sequence)
        self.ends = light_at_ends(sequence.frame_dtype)

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        return self._sequence.voxels(start, stop, *box)

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        return as_light(super()._read_frames(kind, start, stop, box))

    def _read_instant(self, instant: int, start: int, stop: int, box: Box) -> np.ndarray:
        return as_light(super()._read_instant(instant, start, stop, box))

    def _read_packed(self, start: int, stop: int, beside: float, box: Box) -> list[np.ndarray]:
        return self._sequence.packed(start, stop, beside, *box)

    def known_samples(self, window: int, beside: float) -> KnownSamples:
        """Return which samples `packed` returns of a window."""
        return self._sequence.known_samples(window, beside)


def with_linear_frames(
    sequences: Sequence[WindowSequence], curve: FrameCurve | None = None
) -> list[WindowSequence]:
    """Return sequences whose frames are linear light: themselves, where they are.

    Args:
        sequences: the sequences.
        curve: what their frames are; None: as the spikes tell, see `_curves_of`.

    Raises:
        StoreError: an unknown curve.
    """
    require_curve(curve)
    curves = _curves_of(sequences) if curve is None else [curve] * len(sequences)
    return [
        LinearFrames(sequence) if found == "srgb" and not is_decoded(sequence) else sequence
        for sequence, found in zip(sequences, curves, strict=True)
    ]


def require_curve(curve: str | None) -> None:
    """Refuse what is no curve of frames.

    Raises:
        StoreError: it is none.
    """
    if curve not in (None, *FRAME_CURVES):
        raise StoreError(f"curve: expected {' or '.join(FRAME_CURVES)}, got {curve!r}")


def light_at_ends(codes: FrameType) -> tuple[float, float]:
    """Return `ends_of` frames of sRGB, as linear light, by their files' type."""
    darkest, brightest = light_of_codes(np.array([DARKEST, BRIGHTEST[codes]])).tolist()
    return darkest, brightest


def in_codes(sequence: WindowSequence, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return restored frames (..., 3), which may be brighter than 1, as a sequence's files are."""
    if not is_decoded(sequence):
        return frames
    return np.asarray(codes_of_light(frames), np.float32)


def shown_in_8_bits(sequence: WindowSequence, frame: DeepRGB) -> RGB:
    """Return a frame (H, W, 3) that was read of a sequence as its files have it, in 8 bits."""
    return encode_srgb(to_unit(frame)) if is_decoded(sequence) else to_8_bits(frame)


def ends_of(sequence: Any, read: FrameType) -> tuple[float, float]:
    """Return the values up to which a sequence's frames are black, and from which on clipped.

    Args:
        sequence: the sequence.
        read: type of its frames, as they are read.
    """
    if is_decoded(sequence):
        ends: tuple[float, float] = sequence.ends
        return ends
    return DARKEST, BRIGHTEST[read]


def _curves_of(sequences: Sequence[WindowSequence]) -> list[FrameCurve]:
    """Return what the frames of sequences are, which is the same in nearly all data sets.

    `MOST_TOLD` sequences are read, and all of them where these differ. One that tells nothing is
    taken for what most are.
    """

    def tell(indices: Iterable[int]) -> dict[int, FrameCurve | None]:
        some = list(indices)
        calls = [partial(_told_curve, sequences[i]) for i in some]
        remote = any(sequence.is_remote for sequence in sequences)
        return dict(zip(some, together(calls, side_by_side=remote), strict=True))

    last = len(sequences) - 1
    told = tell(np.unique(np.linspace(0, last, min(MOST_TOLD, last + 1)).astype(int)).tolist())
    if {"linear", "srgb"} <= set(told.values()):
        told = tell(range(last + 1))
    known = Counter(curve for curve in told.values() if curve is not None)
    most: FrameCurve = max(known, key=lambda curve: known[curve], default="linear")
    return [told.get(i) or most for i in range(last + 1)]


def frame_curve_of(sequence: WindowSequence) -> FrameCurve:
    """Return what the frames of a sequence are, as the spikes tell.

    Where spikes are too few, or all is equally bright, frames are taken as linear light.
    """
    return _told_curve(sequence) or "linear"


def _told_curve(sequence: WindowSequence) -> FrameCurve | None:
    """Return what the spikes tell of a sequence's frames; None: nothing.

    The middle window is read; where it does not tell clearly, the first and the last, too.
    """
    if is_decoded(sequence):
        return "srgb"
    if not sequence.windows_are_raw:
        return "linear"
    last = sequence.length - 1
    told: list[float] = []
    for window in dict.fromkeys((last // 2, 0, last)):
        with suppress(SpikeDeblurError):  # whoever uses a damaged window is told so there
            errors = _errors(sequence, window)
            if errors is not None:
                linear, srgb = errors
                told.append(srgb / linear)
        if len(told) == 1 and not SURE / 2 < told[0] < 2 / SURE:
            break
    if not told:
        return None
    return "srgb" if float(np.median(told)) < SURE else "linear"


def _errors(sequence: WindowSequence, window: int) -> tuple[float, float] | None:
    """Return how far spikes are from following a window's frame: as it is, and decoded.

    Pixels are compared in groups of equal number, by brightness. Spikes follow light up to a factor
    and an offset, such as dark current. None: too little is within the range of both cameras, or
    all is equally bright.
    """
    blur = sequence.blur(window, window + 1)
    counts = in_frame_grid(sequence).voxels(window, window + 1)[0]
    rate = counts.sum(0, dtype=np.float32) / np.float32(max(sequence.samples[window], 1))
    codes = to_unit(blur)[0]
    scale = codes.shape[0] // rate.shape[0]
    seen = _area_mean(luminance(codes), scale)
    light = _area_mean(luminance(decode_srgb(blur)[0]), scale)
    most = codes.max(-1).reshape(rate.shape[0], scale, rate.shape[1], scale).max((1, 3))
    lit = (seen > _LIT) & (most < BRIGHTEST[blur.dtype.name]) & (rate < _FULL)
    if is_registered(sequence):
        lit &= rate > 0  # elsewhere the spike camera may not look
    if np.count_nonzero(lit) < FEWEST:
        return None
    order = np.argsort(seen[lit], kind="stable")
    seen, light, rate = (
        np.array([group.mean(dtype=np.float64) for group in np.array_split(x[lit][order], _GROUPS)])
        for x in (seen, light, rate)
    )
    if seen[-1] - seen[0] < _EVEN or not rate.any():
        return None
    return _unexplained(rate, seen), _unexplained(rate, light)


def _unexplained(rate: npt.NDArray[Any], light: npt.NDArray[Any]) -> float:
    """Return what of rates is no factor of light and an offset, as a share of their mean."""
    light = light - light.mean()
    rest = rate - rate.mean()
    rest -= light * (light @ rest) / (light @ light)
    return max(float(np.sqrt(np.square(rest).mean()) / abs(rate.mean())), 1e-6)


def _area_mean(plane: npt.NDArray[Any], scale: int) -> npt.NDArray[np.float32]:
    height, width = (side // scale for side in plane.shape)
    return np.asarray(plane.reshape(height, scale, width, scale).mean((1, 3)), np.float32)


def as_light(frames: DeepRGB) -> npt.NDArray[np.uint16]:
    """Return frames of sRGB as linear light of 16 bits."""
    return np.asarray(np.rint(65535 * decode_srgb(frames)), np.uint16)


def is_decoded(sequence: WindowSequence) -> bool:
    """Return whether a sequence reads sRGB as light, whatever reads it."""
    return bool(getattr(sequence, "frame_curve", "linear") == "srgb")
