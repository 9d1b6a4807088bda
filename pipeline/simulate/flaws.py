"""Pixels of a simulated spike camera that differ, as those of real ones do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spikes.sensor import Sensor
from .clips import SimulateError, rng

_DARK_SPREAD = 0.3
"""Spread of the logarithm of good pixels' dark rates."""
_LEAST_HOT = 0.02
"""Least dark rate of a hot pixel, in spikes a sample; at 1 it fires always."""
_HOTTER = 10
"""Least dark rate of a hot pixel, in mean dark rates."""
_LEAST_GAIN = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaws:
    """By how much the pixels differ."""

    gain_spread: float = 0.0
    """Standard deviation of the pixels' gains, as a share of their mean."""
    dark_rate: float = 0.0
    """Mean spikes a sample of a good pixel in the dark."""
    hot: int = 0
    """Number of pixels that fire at random in the dark, in 2 % of the samples to all."""
    dead: int = 0
    """Number of pixels that never fire."""

    def __post_init__(self) -> None:
        if not 0 <= self.gain_spread <= 0.25:
            raise SimulateError(
                f"expected --gain-spread of 0 to 0.25, found {self.gain_spread}; cameras have 0.05 "
                "to 0.1"
            )
        if not 0 <= self.dark_rate <= 0.05:
            raise SimulateError(
                f"expected --dark-rate of 0 to 0.05 spikes a sample, found {self.dark_rate}"
            )

    def sensor(self, shape: tuple[int, int], seed: int) -> Sensor:
        """Return the pixels, the same ones for a shape (H, W) and a seed.

        Raises:
            SimulateError: more than half of them are to be hot or dead.
        """
        height, width = shape
        if 2 * (self.hot + self.dead) > height * width:
            raise SimulateError(
                f"expected at most half of {height}x{width} pixels to be hot or dead, found "
                f"{self.hot + self.dead}; give fewer --hot and --dead"
            )
        random = rng(seed, f"{height}x{width}", "sensor")
        gain = random.normal(1, self.gain_spread, shape).clip(_LEAST_GAIN)
        spread = random.normal(-(_DARK_SPREAD**2) / 2, _DARK_SPREAD, shape)
        dark = self.dark_rate * np.exp(spread)
        bad = random.permutation(height * width)[: self.hot + self.dead]
        hot, dead = (np.zeros(shape, np.bool_) for _ in range(2))
        hot.reshape(-1)[bad[: self.hot]] = True
        dead.reshape(-1)[bad[self.hot :]] = True
        least = np.log(max(_LEAST_HOT, _HOTTER * self.dark_rate))
        dark[hot] = np.exp(random.uniform(least, 0, self.hot))
        dark[dead] = 0
        gain /= gain[~(hot | dead)].mean()
        gain[dead] = 0
        return Sensor(gain.astype(np.float32), dark.astype(np.float32), hot, dead, hot | dead)
