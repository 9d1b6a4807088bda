"""The sensor that a recording's side file names."""

from __future__ import annotations

from pathlib import Path

from ..align.manifest import AlignedSequence
from ..calibrate.sensor_file import read_sensor
from ..spikes.sensor import SensorError
from ..spikes.sidefile import beside, read_side_file


def sensor_of(sequence: AlignedSequence, root: str) -> str | None:
    """Return the hash of the sensor that the recording's side file names; None: it names none.

    Raises:
        SensorError: it names one that can't be read, or of another size.
    """
    dat = Path(root, sequence.windows[0].spikes)
    side = read_side_file(dat) if dat.is_file() else None
    if side is None or side.sensor is None:
        return None
    try:
        found = read_sensor(beside(dat, side.sensor))
        (height, width), (h, w) = sequence.spike_geometry().shape, found.sensor.shape
        if (height, width) != (h, w):
            raise SensorError(
                f"{found.path}: expected {height}x{width} pixels as in {sequence.seq}, found "
                f"{h}x{w}"
            )
    except SensorError as error:
        raise SensorError(
            f"{dat}: the sensor that its side file names can't be used: {error}; correct or remove "
            "`sensor` there"
        ) from error
    return found.sha256
