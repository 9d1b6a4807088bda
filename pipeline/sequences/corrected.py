"""Sequences whose pixels a sensor's file corrects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from ..calibrate.sensor_file import SensorFile, read_sensor
from ..frames.listing import shorten
from ..host.files import StrPath
from ..spikes.parts import open_stream
from ..spikes.presets import parse_geometry
from ..spikes.registration import Registration
from ..spikes.sensor import PixelCorrection, SensorError
from ..spikes.settings import SpikeSettings
from ..spikes.sidefile import names_sensor
from ..storage.base import StoreError
from .contract import WindowSequence, sensor_of
from .stored import StoreSequence

_MOST_LOOKED_AT = 4096
"""Most samples that are looked at for the pattern of a sensor."""
_CLEARLY = 0.1
"""Difference of correlations that is no chance."""
_FAINT = 1e-3


def correction(path: Path, dat: Path, settings: SpikeSettings) -> PixelCorrection:
    """Return how the pixels of a recording differ, as it is read.

    Raises:
        SensorError: the file can't be read, or is another camera's.
    """
    try:
        file = read_sensor(path)
        found = _in_grid(file, str(dat), settings.geometry.describe(), settings.registration)
        if parse_geometry(file.record.geometry).flip_rows != settings.geometry.flip_rows:
            _require_same_way_up(file, dat, settings)
    except SensorError as error:
        named_by = names_sensor(dat, path)
        if named_by is None:
            raise
        raise SensorError(f"{named_by}: the sensor that it names can't be used: {error}") from error
    return found


def _require_same_way_up(file: SensorFile, dat: Path, settings: SpikeSettings) -> None:
    """Refuse a sensor whose pattern the recording shows upside down.

    Files of one camera may have their rows in either order, as long as geometries say which.
    """
    stream = open_stream(dat, settings.geometry, settings.cut)
    start, stop = stream.whole
    rates = stream.tfp(start, min(stop, start + _MOST_LOOKED_AT))
    seen = _detail(np.log(rates + _FAINT))
    pattern = np.where(file.sensor.filled, 1, file.sensor.gain) + file.sensor.dark / rates.mean()
    straight, turned = (
        float(np.corrcoef(seen.ravel(), _detail(np.log(plane)).ravel())[0, 1])
        for plane in (pattern, pattern[::-1])
    )
    if turned > straight + _CLEARLY:
        raise SensorError(
            f"{file.path}: expected the pattern of {dat}, found it upside down, as it was measured "
            f"with {file.record.geometry}; correct the row order of one of the geometries"
        )


def _detail(plane: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return how each pixel (H, W) departs from its neighbours, without the largest departures."""
    padded = np.pad(plane, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    departs = plane - around / 4
    most = 3 * float(np.median(np.abs(departs)))
    return np.clip(departs, -most, most)


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


def uncorrected(sequences: Sequence[WindowSequence]) -> str | None:
    """Return a sentence about sequences whose sensor is recorded, but not given; None: there are
    none.
    """
    named = [
        sequence.seq
        for sequence in sequences
        if isinstance(sequence, StoreSequence)
        and sequence.record.sensor_sha256 is not None
        and sensor_of(sequence) is None
    ]
    if not named:
        return None
    return (
        f"pixels of {shorten(named)} differ, by the sensor's file that the recording names, and "
        "are taken as equal"
    )


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
