"""Pixels of a spike camera that differ: relative gain, dark rate, hot and dead ones.

A pixel fires `gain * g * light + dark` times a sample, where `gain` is the camera's and `g` and
`dark` are the pixel's own. So what it saw is (spikes - dark * samples) / g, in the spikes of the
camera's mean pixel. A hot pixel is corrected like any other, unless it is so hot that nothing can
be told of it: then, and if it is dead, it gets the weighted mean of its neighbours.

`PixelCorrection.corrected` is the one place where this is done. It takes counts, light and rates
alike, because all are sums of spikes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from .registration import Registration

Plane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Span = tuple[int, int]

_HOT, _DEAD, _FILLED = 1, 2, 4

_AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
_NEARNESS = np.array([1 / (y * y + x * x) for y, x in _AROUND], np.float32)


class SensorError(SpikeDeblurError):
    """A sensor's map is impossible, or belongs to other spikes."""


@dataclass(frozen=True, slots=True, eq=False)
class Sensor:
    """How the pixels of a spike camera differ; all planes are (H, W), upright."""

    gain: Plane
    """Spikes at a light, relative to the mean of the good pixels; 1 where it is not known."""
    dark: Plane
    """Spikes a sample without light."""
    hot: Mask
    """Pixels that fire far more often in the dark than most."""
    dead: Mask
    """Pixels that fire too seldom in light."""
    filled: Mask
    """Pixels that tell nothing and are filled from their neighbours: dead, or too hot."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.gain.shape
        return height, width

    @property
    def flaws(self) -> npt.NDArray[np.uint8]:
        """Flaws (H, W) as files hold them: 1: hot, 2: dead, 4: filled, and sums of these."""
        flaws = np.zeros(self.shape, np.uint8)
        for value, mask in ((_HOT, self.hot), (_DEAD, self.dead), (_FILLED, self.filled)):
            flaws[mask] |= value
        return flaws

    @property
    def sha256(self) -> str:
        """SHA-256 of all that decides how pixels are corrected, in hex."""
        maps = (self.gain, self.dark, self.filled)
        return hashlib.sha256(b"".join(np.ascontiguousarray(m).tobytes() for m in maps)).hexdigest()

    @classmethod
    def of_maps(cls, gain: Plane, dark: Plane, flaws: npt.NDArray[np.uint8]) -> Sensor:
        """Return the sensor of the maps (H, W) that a file holds; see `flaws`.

        Raises:
            SensorError: no sensor has such values.
        """
        sensor = cls(gain, dark, *((flaws & value) != 0 for value in (_HOT, _DEAD, _FILLED)))
        possible = bool(np.isfinite(gain).all() and (gain > 0).all())
        possible &= bool(np.isfinite(dark).all() and (dark >= 0).all() and (dark <= 1).all())
        if not possible or (flaws > _HOT + _DEAD + _FILLED).any() or sensor.filled.all():
            raise SensorError("expected gains above 0 and dark rates of 0 to 1")
        return sensor


class _Layer(NamedTuple):
    """Filled pixels that touch known ones: usable, or of an earlier layer."""

    place: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    """Rows and columns, (B,) each."""
    sources: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
    """Rows and columns of their neighbours, (B, 8) each."""
    weights: Plane
    """(B, 8), of sum 1: inverse squares of distances, 0 for unknown neighbours."""


class PixelCorrection:
    """Turns what a sensor's pixels counted into what equal pixels would have.

    Pixels are filled layer by layer, from the edge of a group inwards.
    """

    def __init__(self, sensor: Sensor, registration: Registration | None = None) -> None:
        """Prepare the maps in the grid in which spikes are read.

        Args:
            sensor: the pixels.
            registration: how spikes are brought to the frames; None: they are read as they are.

        Raises:
            SensorError: the registration is for spikes of another size, or no pixel is usable.
        """
        gain, dark, bad, hot = sensor.gain, sensor.dark, sensor.filled, sensor.hot
        if registration is not None:
            if registration.spike_shape != sensor.shape:
                raise SensorError(
                    f"expected a sensor of {registration.spike_shape} pixels, for which the "
                    f"registration is, found {sensor.shape}; give the file of this camera"
                )
            sources = registration.sources()
            seen = sources >= 0
            gain = np.where(seen, gain.reshape(-1)[sources], np.float32(1))
            dark = np.where(seen, dark.reshape(-1)[sources], np.float32(0))
            bad, hot = (seen & mask.reshape(-1)[sources] for mask in (bad, hot))
        if bad.all():
            raise SensorError("expected a sensor with a usable pixel, found none; calibrate again")
        self.shape: tuple[int, int] = bad.shape
        self._gain = np.where(bad, np.float32(1), gain)
        self._dark = np.where(bad, np.float32(0), dark)
        self._noise = np.where(bad | ~hot, np.float32(0), np.sqrt(dark) / gain)
        self._layers = _layers(bad)

    def around(self, rows: Span, columns: Span) -> tuple[Span, Span]:
        """Return the rows and columns that `corrected` needs for a crop: those of fills, too."""
        reach = len(self._layers)
        height, width = self.shape
        return (
            (max(0, rows[0] - reach), min(height, rows[1] + reach)),
            (max(0, columns[0] - reach), min(width, columns[1] + reach)),
        )

    def noise(self, samples: float) -> Plane:
        """Return the noise of hot pixels' rates (H, W), in spikes a sample, after the correction.

        Their dark spikes come at random, so that of n samples their number is not known; 0 for all
        other pixels, filled ones too.
        """
        return np.asarray(self._noise / np.sqrt(np.float32(samples)), np.float32)

    def corrected(
        self,
        planes: npt.NDArray[np.integer] | npt.NDArray[np.floating],
        samples: npt.NDArray[np.integer] | float,
        rows: Span | None = None,
        columns: Span | None = None,
    ) -> Plane:
        """Return spikes as equal pixels would have fired them.

        Values may fall a little below 0, where a pixel fired less than it does on the mean in the
        dark; so sums over time are right.

        Args:
            planes: (..., h, w) counts or light in spikes, of `around(rows, columns)`.
            samples: (...) spike samples that each plane is of; 1 for spikes a sample.
            rows: rows of the crop; None: all.
            columns: columns of the crop; None: all.

        Returns:
            (..., rows, columns) float32.
        """
        height, width = self.shape
        rows, columns = rows or (0, height), columns or (0, width)
        (top, bottom), (left, right) = self.around(rows, columns)
        inside = slice(top, bottom), slice(left, right)
        light = np.array(planes, np.float32)
        each = np.broadcast_to(np.asarray(samples, np.float32), light.shape[:-2])
        for i in np.ndindex(each.shape):  # one by one: the temporary values are of one plane
            light[i] -= each[i] * self._dark[inside]
            light[i] /= self._gain[inside]
        for place, sources, weights in self._layers:
            # What lies on the margin, and needs more than is there, is cut off below.
            near = (place[0] >= top) & (place[0] < bottom)
            near &= (place[1] >= left) & (place[1] < right)
            y = np.clip(sources[0][near] - top, 0, bottom - top - 1)
            x = np.clip(sources[1][near] - left, 0, right - left - 1)
            filled = (light[..., y, x] * weights[near]).sum(-1)
            light[..., place[0][near] - top, place[1][near] - left] = filled
        cut = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
        return light[..., cut[0], cut[1]]


def _layers(bad: Mask) -> list[_Layer]:
    """Return the pixels to fill in the order in which they are filled."""
    height, width = bad.shape
    unknown, layers = bad.copy(), []
    steps = np.array(_AROUND).T  # (2, 8)
    while unknown.any():
        y, x = np.nonzero(unknown)
        rows, columns = y[:, None] + steps[0], x[:, None] + steps[1]  # (B, 8)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        weights = np.where(inside & ~unknown[rows, columns], _NEARNESS, 0)
        touching = weights.any(axis=1)
        weights = weights[touching] / weights[touching].sum(axis=1, keepdims=True)
        layers.append(
            _Layer(
                (y[touching], x[touching]),
                (rows[touching], columns[touching]),
                weights.astype(np.float32),
            )
        )
        unknown[y[touching], x[touching]] = False
    return layers
