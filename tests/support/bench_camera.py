"""A bench with two cameras: a scene at any instant, spikes of it, and exposures of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikedeblur.pipeline.frames.images import to_uint8, write_png
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera, luminance

SIDE = 32
GEOMETRY = "16x16,bottom-up"
SPEED = 400.0
"""Pixels a second that the texture moves."""


def scene(instant: float) -> np.ndarray:
    """Return the sharp frame (SIDE, SIDE, 3) in [0, 1] at an instant, in seconds."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    x = x + SPEED * instant
    waves = np.sin(x / 2.2 + y / 5) + np.sin(y / 3 - x / 4.1) + np.sin((x + y) / 9)
    light = 0.5 + 0.13 * waves
    return (light[..., None] * np.array([1.0, 0.9, 0.8])).astype(np.float32)


def blurred(start: float, end: float) -> np.ndarray:
    """Return the mean of the scene over [start, end), (SIDE, SIDE, 3) uint8."""
    instants = start + (end - start) * (np.arange(64) + 0.5) / 64
    return to_uint8(np.mean([scene(at) for at in instants], axis=0))


def record(dat: Path, seconds: float, rate: float, threshold: float = 2.0) -> None:
    """Write what a spike camera sees from instant 0 on, and its side file."""
    planes = (
        luminance(scene(i / rate)).reshape(16, 2, 16, 2).mean(axis=(1, 3))
        for i in range(round(seconds * rate))
    )
    camera = SpikeCamera(threshold=threshold)
    spikes = np.stack(list(camera.record(planes, np.random.default_rng(5))))
    write_spikes(dat, spikes, parse_geometry(GEOMETRY))
    write_side_file(dat, SideFile(geometry=GEOMETRY, rate=rate, gain=camera.gain))


def photograph(folder: Path, exposures: dict[str, tuple[float, float]]) -> None:
    """Write a blurred frame for each name, exposed during [start, end)."""
    for name, (start, end) in exposures.items():
        write_png(folder / name, blurred(start, end))
