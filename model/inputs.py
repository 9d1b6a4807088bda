"""What the network is given: frames in [0, 1], and voxels put in time and normalised.

Training, restoring and `adapt` all make their inputs here. What a recording does not say about its
spikes is measured first, on a training crop or on whole frames, and then holds for all parts of
the clip.

Letters in shape comments: T windows of a clip, K bins, h and w rows and columns of spikes, H and W
of frames; ... any batch dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..configs.schema import NormConfig
from .gain import gain_from_blur
from .lag import delay, lag_of_planes, lag_planes
from .normalize import normalize_counts


class RawWindows(NamedTuple):
    """Windows of a clip as they are read: whole frames, or the same part of each."""

    blur: Tensor
    """(..., T, 3, H, W) RGB, uint8 or uint16, or floating in [0, 1]."""
    voxels: Tensor
    """(..., T, K, h, w) counts, or light in spikes where `relative` is given that."""
    samples: Tensor
    """(..., T) integer, spike samples in each window."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the spikes of a clip were recorded; the same for all parts of its frames."""

    gain: Tensor
    """(..., T) spikes a sample at unit luminance; NaN: unknown."""
    late: Tensor | None
    """(...) float32, bins by which spikes come late; less than 0: early. None: not corrected."""

    def of_window(self, window: int) -> Conditions:
        """Return the conditions of one window, still (..., 1)."""
        return replace(self, gain=self.gain[..., window : window + 1])

    def in_time(self, voxels: Tensor) -> Tensor:
        """Return voxels (..., T, K, h, w) moved by their lag in whole bins; see `delay`."""
        if self.late is None:
            return voxels
        bins = -self.late.to(voxels.device).round().long()
        return delay(voxels, bins[..., None].expand(voxels.shape[:-3]))


def measure_conditions(parts: Iterable[RawWindows], gain: Tensor, norm: NormConfig) -> Conditions:
    """Measure what is not known of a clip, as its blurred frames show it.

    The gain is measured for each window, where it is unknown and `relative` needs it; the lag for
    all windows together, with CORRECT_LAG.

    Args:
        parts: the clip's windows, in parts that follow each other in T. They are read one by one,
            so memory holds one, and not at all where nothing is to be measured.
        gain: (..., T) spikes a sample at unit luminance; NaN: unknown.
        norm: what the network was trained with.
    """
    needs_gain = norm.MODE == "relative" and norm.CURVE is None
    if gain.device.type == "cpu":  # to ask a GPU would wait for it
        needs_gain = needs_gain and bool(gain.isnan().any())
    if not (needs_gain or norm.CORRECT_LAG):
        return Conditions(gain, None)
    shown, planes, bins = [], [], 0
    for blur, voxels, samples in parts:
        bins = voxels.shape[-3]
        frames = unit_range(blur)
        if needs_gain:
            shown.append(gain_from_blur(voxels, samples, frames))
        if norm.CORRECT_LAG:
            planes.append(lag_planes(voxels, frames))
    if needs_gain:
        measured = torch.cat(shown, -1)
        gain = gain.to(measured, non_blocking=True)
        gain = torch.where(gain.isnan(), measured, gain)
    late = lag_of_planes(torch.cat(planes, -1)) * bins if planes else None
    return Conditions(gain, late)


def network_inputs(
    windows: RawWindows, conditions: Conditions | None, norm: NormConfig
) -> tuple[Tensor, Tensor]:
    """Return what the network is given of some windows, or of a part of their frames.

    Args:
        windows: on the network's device; samples may be elsewhere.
        conditions: of the whole clip; missing batch dimensions are broadcast. None: log1p of the
            voxels is taken already, and they stay as they are.
        norm: what the network was trained with.

    Returns:
        Blurred frames (..., T, 3, H, W) float32 in [0, 1], and voxels (..., T, K, h, w) float32.

    Raises:
        NormalizeError: `rate` without gain, or fewer samples than bins.
    """
    blur, voxels, samples = windows
    frames = unit_range(blur)
    if conditions is None:
        return frames, voxels
    counts = conditions.in_time(voxels.to(torch.float32))  # which holds counts exactly
    return frames, normalize_counts(counts, samples, conditions.gain, norm)


def unit_range(image: Tensor) -> Tensor:
    """Return an image of 8 or 16 bits as float32 in [0, 1]; one of floats as it is."""
    if image.is_floating_point():
        return image
    return image.to(torch.float32) / (65535 if image.dtype == torch.uint16 else 255)
