"""The lag between a store's spikes and its sharp frames."""

from __future__ import annotations

import numpy as np
import pytest

from spikedeblur.pipeline.sequences.lag import exposure_lag
from spikedeblur.pipeline.spikes import spike_to_voxel


class Counted:
    """The middle window of a scene, whose spikes may be taken too early or too late."""

    length = 1

    def __init__(self, scene, late: int = 0, still: bool = False) -> None:
        self.scene, self.late, self.still = scene, late, still

    def voxels(self, start: int, stop: int) -> np.ndarray:
        first, last = self.scene.span(1)
        moved = self.scene.spikes[first - self.late : last - self.late].astype(np.uint8)
        counts = spike_to_voxel(moved, 32)
        if self.still:
            counts = np.repeat(counts.mean(0, keepdims=True), 32, axis=0)
        return counts[None]

    def sharp(self, start: int, stop: int) -> np.ndarray:
        return self.scene.sharp[1:2]


@pytest.mark.parametrize("late", [-40, -20, 0, 15, 30])
def test_a_lag_is_measured_to_a_hundredth_of_the_exposure(moving_scene, late):
    first, last = moving_scene.span(1)
    lag = exposure_lag(Counted(moving_scene, late))
    assert lag == pytest.approx(late / (last - first), abs=0.01)


def test_without_motion_it_can_not_be_told(moving_scene):
    assert exposure_lag(Counted(moving_scene, still=True)) is None
