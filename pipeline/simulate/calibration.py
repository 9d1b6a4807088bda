"""Recordings by which the simulated spike camera's pixels are measured: in the dark, and of a lamp.

<out>/calibration/dark/spike.dat
<out>/calibration/flat/spike.dat
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...version import __version__
from ..host.locks import only_writer
from ..spikes.camera import SpikeCamera
from ..spikes.geometry import SpikeGeometry
from ..spikes.sensor import Sensor
from ..spikes.sidefile import SideFile
from .clips import SimulateError, SourceClip, rng
from .job import must_record
from .record import DAT, begin_recording, end_recording, write_stream
from .rig import Rig

FOLDER = "calibration"
SAMPLES = 4096
"""Length of each recording."""
LAMP = 0.25
"""Spikes a sample of the mean pixel before the brightest part of the lamp."""
FALL = 0.25
"""Share of its light that the lamp lacks in the corners."""


@dataclass(frozen=True, slots=True)
class SpikeStand:
    """A simulated spike camera whose pixels differ."""

    camera: SpikeCamera
    sensor: Sensor
    rate: float
    """Samples a second, in Hz."""
    seed: int
    """Seed of phases and noise."""
    settings: dict[str, int | float | bool | str]
    """All that decides it, for the record beside spikes."""


def stand_of(out: Path, clips: Sequence[SourceClip], rig: Rig) -> SpikeStand | None:
    """Return the camera that recorded clips; None: its pixels are equal.

    Raises:
        SimulateError: the clips are of several sizes, as no one camera's are.
    """
    shapes = {clip.shape() for clip in clips} if rig.flaws is not None else set()
    if len(shapes) > 1:
        sizes = " and ".join(f"{height}x{width}" for height, width in sorted(shapes)[:2])
        raise SimulateError(
            f"{out}: expected clips of one size, since one spike camera records them all, found "
            f"{sizes}; simulate them apart, or leave out --gain-spread, --dark-rate, --hot, --dead"
        )
    for height, width in shapes:
        sensor = rig.sensor(rig.spike_shape((height, width)))
        assert sensor is not None
        rate = rig.clock(0).rate
        return SpikeStand(rig.camera(), sensor, rate, rig.seed, rig.recorded())
    return None


def simulate_calibration(out: Path, stand: SpikeStand, *, overwrite: bool = False) -> Path:
    """Record the dark and a lamp with a camera, and return the folder of both.

    Recordings that are there from the same camera are kept.

    Args:
        out: folder of the data set.
        stand: the camera.
        overwrite: replace recordings of another one.

    Raises:
        SimulateError: recordings of another camera are there.
    """
    message = f"{out}: another `simulate` is writing there; wait for it, or stop it"
    with only_writer(out, message):
        height, width = stand.sensor.shape
        lamp = (LAMP / stand.camera.gain * _lamp(height, width)).astype(np.float32)
        for name, light in (("dark", np.zeros_like(lamp)), ("flat", lamp)):
            folder = out / FOLDER / name
            described = [name, stand.settings, [height, width], SAMPLES, LAMP, FALL]
            inputs = hashlib.sha256(json.dumps(described).encode()).hexdigest()
            if not must_record(out, [folder], inputs, overwrite=overwrite):
                continue
            begin_recording(folder / DAT, ())
            geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
            frames = itertools.repeat(light, SAMPLES)
            random = rng(stand.seed, FOLDER, name)
            write_stream(folder / DAT, stand.camera.record(frames, random, stand.sensor), geometry)
            side = SideFile(
                geometry=geometry.describe(),
                rate=stand.rate,
                gain=stand.camera.gain,
                made_by={
                    "tool": "spikedeblur simulate",
                    "version": __version__,
                    "inputs": inputs,
                    **stand.settings,
                },
            )
            end_recording(folder / DAT, side)
    return out / FOLDER


def _lamp(height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the light of a lamp (H, W), 1 where it is brightest, off the middle."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    distance = ((y - 0.2) ** 2 + (x + 0.3) ** 2) / (1.2**2 + 1.3**2)  # 0 to 1
    return np.asarray((1 + distance * ((1 - FALL) ** -0.5 - 1)) ** -2)
