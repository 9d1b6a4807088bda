"""The integrate-and-fire spike camera: luminance in, spikes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from .sensor import Sensor

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of R, G and B, as in every simulator of the field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeCamera:
    """Each pixel adds its luminance every sample and fires when the sum reaches the threshold.

    The threshold is subtracted when it fires (soft reset), so no light is lost: the rate is
    `gain * luminance` as long as that is at most one spike a sample.
    """

    threshold: float = 2.0
    """Integral at which a pixel fires, in units of luminance times samples."""
    noise: float = 0.0
    """Probability that a pixel fires in a sample for no reason, OR-ed into the stream."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise SpikeDeblurError(f"expected --threshold above 0, got {self.threshold}")
        if not 0 <= self.noise < 1:
            raise SpikeDeblurError(f"expected --noise in [0, 1), spikes a sample, got {self.noise}")

    @property
    def gain(self) -> float:
        """Spikes a sample at unit luminance."""
        return 1 / self.threshold

    def record(
        self,
        luminance: Iterable[npt.NDArray[np.float32]],
        rng: np.random.Generator,
        sensor: Sensor | None = None,
    ) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield one (H, W) bool sample of spikes for each (H, W) luminance in [0, 1].

        The integrals start at a random phase in [0, threshold), drawn from `rng` first, so that
        neighbours of equal brightness don't fire together. Memory does not grow with time.

        Args:
            luminance: the frames.
            rng: draws phases and noise.
            sensor: gain and dark rate of each pixel, whose dark charge adds to the light's; a hot
                one fires at random besides. None: all are equal, and silent without light.
        """
        if sensor is not None:
            charge = np.where(sensor.hot, 0, sensor.dark * np.float32(self.threshold))
            hot = np.nonzero(sensor.hot)
        integral: npt.NDArray[np.float32] | None = None
        threshold = np.float32(self.threshold)
        for frame in luminance:
            if integral is None:
                integral = rng.uniform(0, self.threshold, frame.shape).astype(np.float32)
            if sensor is not None:
                frame = frame * sensor.gain + charge
            integral += frame
            fired = integral >= threshold
            integral -= threshold * fired
            if sensor is not None:
                fired[hot] |= rng.random(len(hot[0])) < sensor.dark[hot]
            if self.noise > 0:
                fired |= rng.random(frame.shape, np.float32) < np.float32(self.noise)
            yield fired


def luminance(
    rgb: npt.NDArray[np.unsignedinteger] | npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Return the luminance (..., H, W) float32 in [0, 1] of RGB (..., H, W, 3).

    uint8 is divided by 255, and uint16 by 65535.
    """
    weights = np.array(LUMINANCE, np.float32)
    largest = {"uint8": 255, "uint16": 65535}.get(rgb.dtype.name, 1)
    scale = np.float32(1 / largest)
    return np.asarray(rgb.astype(np.float32) @ (weights * scale), np.float32)
