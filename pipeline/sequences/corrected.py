"""Sequences whose pixels a sensor's file corrects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import SpikeDeblurError
from ..calibrate.sensor_file import SensorFile, read_sensor
from ..host.files import StrPath
from ..spikes.presets import parse_geometry
from ..spikes.registration import Registration
from ..spikes.sensor import PixelCorrection, SensorError
from ..spikes.settings import SpikeSettings
from ..storage.base import StoreError
from .contract import WindowSequence
from .stored import StoreSequence


def correction(path: Path, dat: Path, settings: SpikeSettings) -> PixelCorrection:
    """Return how the pixels of a recording differ, as it is read.

    Raises:
        SensorError: the file can't be read, or is another camera's.
    """
    return _in_grid(
        read_sensor(path), str(dat), settings.geometry.describe(), settings.registration
    )


def correct_sequences(sequences: Sequence[WindowSequence], path: StrPath) -> SensorFile:
    """Have sequences of a store correct their pixels by a sensor's file.

    Raises:
        SensorError: the file can't be read, or is another camera's.
        StoreError: the sequences are no store's.
    """
    file = read_sensor(path)
    for sequence in sequences:
        if not isinstance(sequence, StoreSequence):
            raise StoreError(f"{sequence.seq}: a sensor corrects stores; voxelize these data")
        record = sequence.record
        registration = None
        if record.registered_by is not None:
            shape = parse_geometry(record.geometry).shape
            registration = Registration(record.registered_by, shape, record.frame_shape)
        sequence.correct_pixels(_in_grid(file, sequence.seq, record.geometry, registration))
    return file


def _in_grid(
    file: SensorFile, where: str, geometry: str, registration: Registration | None
) -> PixelCorrection:
    """Return the correction in the grid in which spikes of a geometry are read."""
    recorded = parse_geometry(geometry)
    if recorded.shape != file.sensor.shape:
        (height, width), (h, w) = file.sensor.shape, recorded.shape
        raise SensorError(
            f"{file.path}: expected a sensor of {h}x{w} pixels, as the spikes of {where} have, "
            f"found one of {height}x{width}; give the --sensor of this camera"
        )
    if recorded.bayer is not None:
        raise SensorError(
            f"{file.path}: a sensor's file can't correct spikes under colour filters, and {where} "
            f"has {recorded.describe()}; leave out --sensor"
        )
    try:
        return PixelCorrection(file.sensor, registration)
    except SpikeDeblurError as error:
        raise SensorError(f"{file.path}: {error}") from error
