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
from ..spikes.sidefile import beside, names_sensor, read_side_file
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
        require_same_way_up(file, dat, settings.geometry, settings.cut)
    except SensorError as error:
        named_by = names_sensor(dat, path)
        if named_by is None:
            raise
        raise SensorError(f"{named_by}: the sensor that it names can't be used: {error}") from error
    return found


def sensor_beside(dat: Path, *, raw: bool) -> PixelCorrection | None:
    """Return how pixels differ by the sensor that a recording's side file names; None: it doesn't.

    Args:
        dat: the recording.
        raw: whether what is read are counts, which can be corrected.

    Raises:
        SensorError: the file can't be read, or is another camera's.
        StoreError: what is read are log counts.
    """
    side = read_side_file(dat)
    if side is None or side.sensor is None:
        return None
    path = beside(dat, side.sensor)
    if not raw:
        raise StoreError(
            f"{dat}: expected counts, which the sensor {path} corrects, found log counts; voxelize "
            "again, or remove `sensor` from the side file"
        )
    settings = SpikeSettings(
        geometry=side.spike_geometry(), rate=side.rate or 1.0, gain=side.gain, first=side.first
    )
    return correction(path, dat, settings)


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
