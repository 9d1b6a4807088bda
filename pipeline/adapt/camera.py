"""A recording as `adapt` reads it: windows around several instants, and spikes as light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ...configs.schema import NormConfig
from ...errors import SpikeDeblurError
from ..methods.network import lag_in_bins
from ..methods.tfp_tfi_sdm import centre_weights
from ..sequences.recording import Recording, RecordingSequence
from ..spikes import samples_per_bin
from ..spikes.camera import LUMINANCE
from ..train.data.splits import seen_by

INSTANTS = 4
"""Sharp frames that make an exposure. More cost as much again, and their motion is smaller."""

SMOOTH = 3
"""Side of the square of spike pixels over which the curve is fitted."""

DEGREE = 3
"""Of the polynomial that turns spikes a sample to luminance."""

LAG_EXPOSURES = 16
"""That a recording's lag is measured on."""


Curve = tuple[float, ...]
"""Luminance as a polynomial of spikes a sample, highest power first."""


class AdaptError(SpikeDeblurError):
    """The recordings can't be adapted to."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of T exposures, at M instants of each."""

    blur: npt.NDArray[np.float32]
    """(M, T, 3, S, S): of the window around each instant."""
    counts: npt.NDArray[Any]
    """(M, T, K, s, s) float32; light, where the model is given light."""
    samples: npt.NDArray[np.int64]
    """(M, T)."""
    exposed: npt.NDArray[np.float32]
    """(T, 3, S, S): the frames as they are."""
    light: npt.NDArray[np.float32]
    """(M, T, s, s): luminance that a short window around each instant saw."""


class Camera:
    """A recording's windows around M instants, and how its spikes become luminance."""

    def __init__(self, recording: Recording, bins: int, norm: NormConfig) -> None:
        instants = [(m + 0.5) / INSTANTS - 0.5 for m in range(INSTANTS)]
        self._own = RecordingSequence(recording, bins)
        around = [RecordingSequence(recording, bins, at=at) for at in instants]
        self._around = seen_by(norm, around)
        self.gain = recording.settings.gain
        self._bins = bins
        self._in_time = np.arange(bins)
        if norm.CORRECT_LAG:
            lag = round(lag_in_bins(self._own, 0, min(self._own.length, LAG_EXPOSURES)))
            self._in_time = (self._in_time + lag).clip(0, bins - 1)
        rows, columns = (
            f // v for f, v in zip(self._own.frame_shape, self._own.voxel_shape, strict=True)
        )
        if rows != columns or (
            (rows * self._own.voxel_shape[0], columns * self._own.voxel_shape[1])
            != self._own.frame_shape
        ):
            raise AdaptError(
                f"{recording.dat}: expected frames a whole number of times as large as the spikes' "
                f"{self._own.voxel_shape}, got {self._own.frame_shape}; resize the frames"
            )
        self._ratio = rows

    def clip(self, rng: np.random.Generator, length: int, crop: int, curve: Curve) -> Crop:
        """Return a random clip and crop; smaller where the recording is."""
        length = min(length, self._own.length)
        start = int(rng.integers(self._own.length - length + 1))
        side = crop // self._ratio
        spans = []
        for extent in self._own.voxel_shape:
            own = min(side, extent)
            first = int(rng.integers(extent - own + 1))
            spans.append((first, first + own))
        large = [(first * self._ratio, last * self._ratio) for first, last in spans]
        part = (start, start + length)
        counts = np.stack([around.voxels(*part, *spans) for around in self._around])
        counts = counts.astype(np.float32)[:, :, self._in_time]
        samples = np.stack([around.samples[slice(*part)] for around in self._around])
        return Crop(
            blur=np.stack([_floats(around.blur(*part, *large)) for around in self._around]),
            counts=counts,
            samples=samples,
            exposed=_floats(self._own.blur(*part, *large)),
            light=self._light(counts, samples, curve),
        )

    def _light(
        self, counts: npt.NDArray[Any], samples: npt.NDArray[np.int64], curve: Curve
    ) -> npt.NDArray[np.float32]:
        """(M, T, K, s, s) -> (M, T, s, s): luminance in the instant's share of the time.

        The curve's slope at the exposure's rate: of few spikes the curve itself would be biased.
        """
        rate = counts.sum(2) / samples[..., None, None]
        change = self._short_rate(counts, samples) - rate
        slope = np.polyval(np.polyder(np.poly1d(curve)), rate).clip(0)
        return np.asarray(np.polyval(curve, rate) + slope * change, np.float32)

    def _short_rate(
        self, counts: npt.NDArray[Any], samples: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """(M, T, K, s, s) -> (M, T, s, s): spikes a sample in the instant's share of the time."""
        rates = np.empty((*counts.shape[:2], *counts.shape[3:]))
        for m, of_instant in enumerate(samples):
            for t, number in enumerate(of_instant):
                own = self._own.samples[t]  # a shorter window holds more of the instant's share
                bins = min(self._bins, max(1, round(self._bins * own / INSTANTS / number)))
                weights = centre_weights(int(number), self._bins, bins)
                seen = weights @ samples_per_bin(int(number), self._bins)
                rates[m, t] = np.tensordot(weights, counts[m, t], axes=1) / seen
        return rates

    def seen(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return spikes a sample and luminance of all exposures, smoothed; both (n,)."""
        rates, lights = [], []
        for i in range(self._own.length):
            counts = self._own.voxels(i, i + 1)[0]
            rates.append(_smooth(counts.sum(0) / self._own.samples[i]).ravel())
            light = _floats(self._own.blur(i, i + 1))[0].transpose(1, 2, 0) @ np.array(LUMINANCE)
            height, width = self._own.voxel_shape
            parts = light.reshape(height, self._ratio, width, self._ratio)
            lights.append(_smooth(parts.mean((1, 3))).ravel())
        return np.concatenate(rates), np.concatenate(lights)


def fit_curve(cameras: Sequence[Camera]) -> Curve:
    """Fit luminance to the spikes' rate: coefficients of a polynomial, highest power first."""
    pairs = [camera.seen() for camera in cameras]
    rate, light = (np.concatenate(values) for values in zip(*pairs, strict=True))
    degree = DEGREE if rate.std() > 1e-6 else 0
    return tuple(float(c) for c in np.polyfit(rate, light, degree))


def _smooth(plane: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    image = torch.from_numpy(np.asarray(plane, np.float64))[None]
    return np.asarray(F.avg_pool2d(image, SMOOTH, 1)[0])


def _floats(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(T, H, W, 3) uint8 -> (T, 3, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
