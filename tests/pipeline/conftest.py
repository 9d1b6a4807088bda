"""A moving textured scene, recorded by an ideal camera and by the spike camera model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from data_sets import data, kind, spikes_array, spikes_shard, store  # noqa: F401  # fixtures
from PIL import Image
from short_recordings import recording  # noqa: F401  # a fixture

from spikedeblur.pipeline.spikes.camera import SpikeCamera, luminance

FPS, EXPOSURE, PER_FRAME = 1000.0, 33, 8


@dataclass(frozen=True)
class MovingScene:
    """Three exposures of 33 frames at 1000 frames a second; spikes at half size, 8000 Hz."""

    centres: tuple[int, ...]
    blur: np.ndarray
    """(N, 96, 96, 3) uint8."""
    sharp: np.ndarray
    """(N, 96, 96, 3) uint8."""
    spikes: np.ndarray
    """(samples, 48, 48) bool, from the first frame on."""
    gain: float
    rate: float

    def span(self, window: int) -> tuple[int, int]:
        """First sample of an exposure and one past its last."""
        first = (self.centres[window] - EXPOSURE // 2) * PER_FRAME
        return first, first + (EXPOSURE - 1) * PER_FRAME + 1


@pytest.fixture(scope="session")
def moving_scene() -> MovingScene:
    rng = np.random.default_rng(11)
    # Light changes far more than colour, as in nature: spikes see luminance only.
    texture = np.zeros((96, 200, 3), np.float32)
    for cell, weight in ((24, 0.4), (12, 0.3), (6, 0.3)):
        small = rng.random((96 // cell + 1, 200 // cell + 1), np.float32)
        large = Image.fromarray(small).resize((200, 96), Image.Resampling.BICUBIC)
        texture += weight * np.asarray(large)[..., None]
    texture += 0.1 * (rng.random((1, 1, 3), np.float32) - 0.5)
    texture = np.clip(1.4 * texture - 0.2, 0.05, 0.95)
    frames = np.stack([texture[:, i : i + 96] for i in range(65)])  # a pixel a frame
    light = luminance(frames)  # (65, 96, 96)
    light = light.reshape(65, 48, 2, 48, 2).mean(axis=(2, 4))  # (65, 48, 48)
    times = np.arange(64 * PER_FRAME + 1) / PER_FRAME
    camera = SpikeCamera(threshold=2.0)
    between = (
        light[int(t)] * (1 - t % 1) + light[min(int(t) + 1, 64)] * np.float32(t % 1) for t in times
    )
    spikes = np.stack(list(camera.record(between, rng)))
    centres = (16, 31, 46)
    blur = np.stack([frames[c - 16 : c + 17].mean(axis=0) for c in centres])
    return MovingScene(
        centres=centres,
        blur=np.rint(blur * 255).astype(np.uint8),
        sharp=np.rint(frames[list(centres)] * 255).astype(np.uint8),
        spikes=spikes,
        gain=camera.gain,
        rate=FPS * PER_FRAME,
    )
