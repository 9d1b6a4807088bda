"""How the pixels of a stored sequence differ, by the maps of their sensor that it brings along."""

from __future__ import annotations

import threading
from typing import Any, cast
from weakref import WeakValueDictionary

import numpy as np

from ..spikes.presets import parse_geometry
from ..spikes.registration import Registration
from ..spikes.sensor import PixelCorrection, Sensor, SensorError
from ..storage.base import Storage, StoreError
from ..storage.checksum import checksum
from ..store.arrays import DAMAGED
from ..store.schema import SENSOR_MAPS, SequenceRecord

_SHARED: WeakValueDictionary[tuple[Any, ...], PixelCorrection] = WeakValueDictionary()
"""Corrections in use in this process, by what they follow from: sequences of one camera share."""
_SHARING = threading.Lock()


def stored_correction(folder: Storage, record: SequenceRecord) -> PixelCorrection | None:
    """Return how the pixels of a stored sequence differ; None: no sensor was named for it.

    Args:
        folder: the sequence's.
        record: the sequence's.

    Raises:
        StoreError: the maps are missing or damaged.
    """
    if record.sensor_sha256 is None:
        return None
    sensor = _sensor(folder, record)  # each sequence's is compared, whatever is shared
    key = (record.sensor_sha256, record.geometry, record.registered_by, record.frame_shape)
    with _SHARING:
        shared = _SHARED.get(key)
        if shared is None:
            shared = PixelCorrection(sensor, registration_of(record))
            _SHARED[key] = shared
    return shared


def registration_of(record: SequenceRecord) -> Registration | None:
    """Return the registration by which a stored sequence was made; None: without one."""
    if record.registered_by is None:
        return None
    shape = parse_geometry(record.geometry).shape
    return Registration(record.registered_by, shape, record.frame_shape)


def _sensor(folder: Storage, record: SequenceRecord) -> Sensor:
    maps = [_read(folder, record, name) for name in SENSOR_MAPS]
    try:
        sensor = Sensor.of_maps(*maps)
        if sensor.sha256 != record.sensor_sha256:
            raise SensorError("expected the maps that the record names, found others")
    except SensorError as error:
        raise StoreError(f"{folder}: its sensor can't be used: {error}; {DAMAGED}") from error
    return sensor


def _read(folder: Storage, record: SequenceRecord, name: str) -> Any:
    """Read a map (H, W), whose file is compared with its checksum."""
    spec, shape = record.specs.get(name), parse_geometry(record.geometry).shape
    if spec is None or (spec.dtype, spec.shape) != (SENSOR_MAPS[name], shape) or spec.shards:
        raise StoreError(
            f"{folder}: expected the map {name} of its sensor, {SENSOR_MAPS[name]} {shape}, found "
            f"{'none' if spec is None else f'{spec.dtype} {spec.shape}'}; {DAMAGED}"
        )
    key, crc32 = spec.key(0), record.complete.crc32 if record.complete else {}
    content = folder.read(key)
    if content is None or len(content) != spec.chunk_bytes or checksum([content]) != crc32.get(key):
        found = "missing" if content is None else "not what was written"
        raise StoreError(f"{folder}: {key}, a map of its sensor, is {found}; {DAMAGED}")
    little = np.dtype(spec.dtype).newbyteorder("<")
    return cast(Any, np.frombuffer(content, little).reshape(shape).astype(spec.dtype))
