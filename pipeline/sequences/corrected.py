"""Sequences whose pixels a sensor's file corrects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import SpikeDeblurError
from ..calibrate.belongs import require_fit, require_same_way_up
from ..calibrate.sensor_file import SensorFile, read_sensor
from ..host.files import StrPath
from ..spikes.geometry import SpikeGeometry
from ..spikes.presets import parse_geometry
from ..spikes.registration import Registration
from ..spikes.sensor import PixelCorrection, SensorError
from ..spikes.settings import SpikeSettings
from ..spikes.sidefile import names_sensor
from ..storage.base import StoreError
from .contract import WindowSequence
from .stored import StoreSequence
from .stored_sensor import registration_of


def correction(path: Path, dat: Path, settings: SpikeSettings) -> PixelCorrection:
    """Return how the pixels of a recording differ, as it is read.

    Raises:
        SensorError: the file can't be read, or is another camera's.
    """
    try:
        file = read_sensor(path)
        found = _in_grid(file, str(dat), settings.geometry, settings.registration)
        require_same_way_up(file, dat, settings.geometry)
    except SensorError as error:
        named_by = names_sensor(dat, path)
        if named_by is None:
            raise
        raise SensorError(f"{named_by}: the sensor that it names can't be used: {error}") from error
    return found


def correct_sequences(sequences: Sequence[WindowSequence], path: StrPath) -> SensorFile:
    """Have sequences of a store correct their pixels by a sensor's file, in place of their own.

    Raises:
        SensorError: the file can't be read, or is another camera's.
        StoreError: the sequences are no store's.
    """
    file = read_sensor(path)
    for sequence in sequences:
        if not isinstance(sequence, StoreSequence):
            raise StoreError(f"{sequence.seq}: a sensor corrects stores; voxelize these data")
        record = sequence.record
        geometry = parse_geometry(record.geometry)
        sequence.correct_pixels(_in_grid(file, sequence.seq, geometry, registration_of(record)))
    return file


def sensors_of(sequences: Sequence[WindowSequence]) -> str | None:
    """Return the hashes of the sensors that stored sequences bring along; None: they have none."""
    records = (sequence.record for sequence in sequences if isinstance(sequence, StoreSequence))
    hashes = sorted({record.sensor_sha256 for record in records if record.sensor_sha256})
    return ", ".join(hashes) or None


def _in_grid(
    file: SensorFile, where: str, geometry: SpikeGeometry, registration: Registration | None
) -> PixelCorrection:
    """Return the correction in the grid in which spikes of a geometry are read."""
    require_fit(file, where, geometry)
    try:
        return PixelCorrection(file.sensor, registration)
    except SpikeDeblurError as error:
        raise SensorError(f"{file.path}: {error}") from error
