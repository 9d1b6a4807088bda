"""A texture in motion before a spike camera, and a colour camera that exposes row after row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikedeblur.pipeline.frames.images import to_uint8, write_png
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera, luminance

SIDE, SCALE = 96, 2
GEOMETRY = f"{SIDE // SCALE}x{SIDE // SCALE},bottom-up"
RATE, SECONDS = 8000.0, 0.3
PERIOD, SHUTTER, START = 0.025, 0.012, 0.03
FRAMES = 9
CAMERA = ["--frame-rate", "40", "--shutter", "12ms", "--start", "30ms"]
VELOCITY = 350.0, 90.0
"""Columns and rows a second that the texture moves."""

_WAVES = ((19.0, 0.3, 0.5), (13.0, 1.4, 1.9), (27.0, 2.2, 4.1), (33.0, 0.9, 2.6), (16.0, 2.9, 0.7))
"""Length in pixels, direction and phase in radians."""


def scene(instants: np.ndarray | float, corner: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return the sharp frame (SIDE, SIDE, 3) in [0, 1].

    Args:
        instants: one instant for all rows, or one for each, (SIDE,), in seconds.
        corner: (x, y) of the view's corner, in pixels.
    """
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    x, y = x + corner[0], y + corner[1]
    at = np.broadcast_to(instants, SIDE)[:, None]
    x, y = x - VELOCITY[0] * at, y - VELOCITY[1] * at
    waves = [
        np.sin(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        for length, angle, phase in _WAVES
    ]
    light = 0.5 + 0.09 * sum(waves)
    return (light[..., None] * np.array([1.0, 0.9, 0.8])).astype(np.float32)


def delays(readout: float) -> np.ndarray:
    """Return how much later than the first row each is exposed, (SIDE,), in seconds."""
    return readout * np.arange(SIDE) / (SIDE - 1)


def photograph(folder: Path, readout: float) -> None:
    """Write the blurred frames, `0000.png` and so on."""
    for i in range(FRAMES):
        first = START + i * PERIOD + delays(readout)
        shares = (np.arange(48) + 0.5) / 48
        frame = np.mean([scene(first + SHUTTER * share) for share in shares], axis=0)
        write_png(folder / f"{i:04d}.png", to_uint8(frame))


def sharp(i: int, readout: float) -> np.ndarray:
    """Return each row of frame `i` as it was in the middle of its own exposure, uint8."""
    return to_uint8(scene(START + i * PERIOD + SHUTTER / 2 + delays(readout)))


def record(dat: Path, corner: tuple[float, float] = (0, 0)) -> None:
    """Write what a spike camera sees from instant 0 on, and its side file.

    Args:
        dat: the file.
        corner: (x, y) of the view's corner in the frames, in pixels.
    """
    side = SIDE // SCALE
    planes = (
        luminance(scene(i / RATE, corner)).reshape(side, SCALE, side, SCALE).mean(axis=(1, 3))
        for i in range(round(SECONDS * RATE))
    )
    camera = SpikeCamera(threshold=2.0)
    spikes = np.stack(list(camera.record(planes, np.random.default_rng(5))))
    write_spikes(dat, spikes, parse_geometry(GEOMETRY))
    write_side_file(dat, SideFile(geometry=GEOMETRY, rate=RATE, gain=camera.gain))
