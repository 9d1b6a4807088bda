"""A recording as `adapt` reads it: windows around several instants, and spikes as light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.schema import NormConfig
from ...errors import SpikeDeblurError
from ...model import Conditions, RawWindows, unit_range
from ..frames.images import to_unit
from ..methods.inputs import InputReader
from ..methods.tfp_tfi_sdm import centre_weights
from ..sequences.contract import Span
from ..sequences.grid import in_frame_grid, resampling_of
from ..sequences.light import seen_by
from ..sequences.recording import Recording, RecordingSequence
from ..spikes import samples_per_bin
from ..spikes.camera import LUMINANCE
from ..spikes.registration import Registration

INSTANTS = 4
"""Sharp frames that make an exposure. More cost as much again, and their motion is smaller."""

SMOOTH = 3
"""Side of the square of spike pixels over which the curve is fitted."""

DEGREE = 3
"""Degree of the polynomial that turns spikes a sample to luminance."""

Curve = tuple[float, ...]
"""Luminance as a polynomial of spikes a sample, highest power first."""

Floats = npt.NDArray[np.float32]


class AdaptError(SpikeDeblurError):
    """The recordings can't be adapted to."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of T exposures, at M instants in each."""

    windows: RawWindows
    """(M, T, ...) the windows around the instants."""
    conditions: Conditions
    """Gains and lag of the T exposures, as `restore` measures them."""
    exposed: Tensor
    """(T, 3, S, S) the recorded frames, in [0, 1]."""
    light: Tensor
    """(M, T, s, s) luminance that a short window around each instant saw."""
    seen: npt.NDArray[np.bool_]
    """(s, s) whether the spike camera looks there."""


class Camera:
    """A recording's windows around M instants, and how its spikes become luminance.

    Args:
        recording: blurred frames and spikes.
        bins: K.
        norm: what the model was trained with.

    Raises:
        SpikeDeblurError: the recording can't be read, or the shapes of its frames and spikes
            contradict each other.
    """

    def __init__(self, recording: Recording, bins: int, norm: NormConfig) -> None:
        instants = [(m + 0.5) / INSTANTS - 0.5 for m in range(INSTANTS)]
        self._exposures = RecordingSequence(recording, bins)
        around = [RecordingSequence(recording, bins, at=at) for at in instants]
        self._around = seen_by(norm, around)
        # A curve would make the gain needless, but `adapt` tries without one too.
        self._reader = InputReader(self._exposures, norm.model_copy(update={"CURVE": None}))
        self._conditions: dict[Span, Conditions] = {}
        self._bins = bins
        self._counts = in_frame_grid(self._exposures)
        self._ratio = self._counts.frame_shape[0] // self._counts.voxel_shape[0]
        self._seen = _seen(self._exposures, recording.settings.registration)
        if not self._seen.any():
            raise AdaptError(
                f"{recording.dat}: its calibration places the spikes outside of the frames; "
                "correct it"
            )

    def clip(self, rng: np.random.Generator, length: int, crop: int, curve: Curve) -> Crop:
        """Return a random clip and crop; smaller where the recording is."""
        length = min(length, self._exposures.length)
        start = int(rng.integers(self._exposures.length - length + 1))
        part = (start, start + length)
        spans = []
        for extent in self._counts.voxel_shape:
            side = min(crop // self._ratio, extent)
            first = int(rng.integers(extent - side + 1))
            spans.append((first, first + side))
        large = [(first * self._ratio, last * self._ratio) for first, last in spans]
        conditions = self._measured(part)
        blur = np.stack([_planes(around.blur(*part, *large)) for around in self._around])
        counts = np.stack([around.voxels(*part, *spans) for around in self._around])
        voxels = torch.from_numpy(counts.astype(np.float32))
        samples = np.stack([around.samples[slice(*part)] for around in self._around])
        light = self._light(conditions.in_time(voxels).numpy(), samples, curve)
        return Crop(
            windows=RawWindows(torch.from_numpy(blur), voxels, torch.from_numpy(samples)),
            conditions=conditions,
            exposed=unit_range(torch.from_numpy(_planes(self._exposures.blur(*part, *large)))),
            light=torch.from_numpy(light),
            seen=self._seen[tuple(slice(*span) for span in spans)],
        )

    def _measured(self, part: Span) -> Conditions:
        """Return the conditions of some exposures; measured once, since whole frames take long."""
        if part not in self._conditions:
            conditions = self._reader.conditions(*part)
            assert conditions is not None, "a recording's counts are raw"
            self._conditions[part] = conditions
        return self._conditions[part]

    def _light(self, counts: Floats, samples: npt.NDArray[np.int64], curve: Curve) -> Floats:
        """(M, T, K, s, s) -> (M, T, s, s): luminance in the instant's share of the time.

        The curve's slope at the exposure's rate is used: the curve itself is biased for few spikes.
        """
        rate = counts.sum(2) / samples[..., None, None]
        change = self._short_rate(counts, samples) - rate
        slope = np.polyval(np.polyder(np.poly1d(curve)), rate).clip(0)
        return np.asarray(np.polyval(curve, rate) + slope * change, np.float32)

    def _short_rate(
        self, counts: Floats, samples: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """(M, T, K, s, s) -> (M, T, s, s): spikes a sample in the instant's share of the time."""
        rates = np.empty((*counts.shape[:2], *counts.shape[3:]))
        for m, t in np.ndindex(samples.shape):
            number, whole = int(samples[m, t]), int(self._exposures.samples[t])
            # A window cut short by the recording's end holds more of the instant's share.
            bins = min(self._bins, max(1, round(self._bins * whole / INSTANTS / number)))
            weights = centre_weights(number, self._bins, bins)
            seen = weights @ samples_per_bin(number, self._bins)
            rates[m, t] = np.tensordot(weights, counts[m, t], axes=1) / seen
        return rates

    def seen(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return spikes a sample and luminance of all exposures, smoothed; both (n,).

        They are of pixels around which the spike camera looks everywhere.
        """
        rates, lights = [], []
        seen = _smooth(self._seen) > 0.999
        for i in range(self._exposures.length):
            counts = self._counts.voxels(i, i + 1)[0]
            rates.append(_smooth(counts.sum(0) / self._exposures.samples[i])[seen])
            frame = to_unit(self._exposures.blur(i, i + 1)[0])  # (H, W, 3)
            light = frame @ np.array(LUMINANCE)
            height, width = self._counts.voxel_shape
            parts = light.reshape(height, self._ratio, width, self._ratio)
            lights.append(_smooth(parts.mean((1, 3)))[seen])
        return np.concatenate(rates), np.concatenate(lights)


def fit_curve(cameras: Sequence[Camera]) -> Curve:
    """Fit luminance to the spikes' rate: coefficients of a polynomial, highest power first."""
    pairs = [camera.seen() for camera in cameras]
    rate, light = (np.concatenate(values) for values in zip(*pairs, strict=True))
    degree = DEGREE if rate.std() > 1e-6 else 0
    return tuple(float(c) for c in np.polyfit(rate, light, degree))


def _seen(sequence: RecordingSequence, registration: Registration | None) -> npt.NDArray[np.bool_]:
    """Return at which pixels (h', w') of the frame's grid the spike camera looks."""
    resampling = resampling_of(sequence)
    shape = sequence.voxel_shape if resampling is None else resampling.shape
    if registration is None:
        return np.ones(shape, np.bool_)
    looks = registration.sources() >= 0
    if resampling is None:
        return looks
    # Beside an edge, light that is interpolated is too bright or too dark.
    return np.abs(resampling.resampled(looks.astype(np.float32)) - 1) < 1e-3


def _smooth(plane: npt.NDArray[np.floating | np.bool_]) -> npt.NDArray[np.float64]:
    image = torch.from_numpy(np.asarray(plane, np.float64))[None]
    return np.asarray(F.avg_pool2d(image, SMOOTH, 1)[0])


def _planes(frames: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """(T, H, W, 3) -> (T, 3, H, W)."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
