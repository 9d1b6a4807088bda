"""A sensor's file as manifests name it: where it lies, and the hash of its metadata.

The metadata hold a checksum of each map, so that their hash stands for the whole file; whoever only
names it need not read the maps. `calibrate.sensor_file` reads them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from ..host.documents import DocumentError, parse_json
from ..host.header import ProductFormat
from ..host.reading import read_file
from .sensor import SensorError

SENSOR = ProductFormat("spikedeblur.sensor", 1)

SENSOR_METADATA: Final = "zarr.json"
"""File with a sensor's attributes, below its path."""

_MOST_BYTES = 2**20


def sensor_hash(path: Path, shape: tuple[int, int] | None = None) -> str:
    """Return the SHA-256 of the metadata of a sensor's file, in hex.

    Args:
        path: the file, which is a folder.
        shape: (H, W) in pixels that it must have; None: any.

    Raises:
        SensorError: no sensor's file is there, or it has another size.
    """
    try:
        content = read_file(path / SENSOR_METADATA, _MOST_BYTES)
        attributes = parse_json(content)["attributes"]
    except (OSError, DocumentError, KeyError, TypeError):
        attributes = None
    if not SENSOR.heads(attributes):
        found = "something else" if path.exists() else "nothing"
        raise SensorError(
            f"{path}: expected a sensor's file that `spikedeblur calibrate` wrote, found {found}; "
            "check the path"
        )
    found_shape = attributes.get("shape")
    if shape is not None and found_shape != list(shape):
        raise SensorError(
            f"{path}: expected a sensor of {shape[0]}x{shape[1]} pixels, as the spikes have, found "
            f"one of {_size(found_shape)}; give the sensor of this camera"
        )
    return hashlib.sha256(content).hexdigest()


def require_sensor(path: Path, sha256: str, named_in: object) -> None:
    """Refuse a sensor's file that is not the one that a manifest names.

    Raises:
        SensorError: it isn't there, or changed.
    """
    if not path.exists():
        raise SensorError(
            f"{named_in}: expected the sensor {path} that it names, found nothing; put the file "
            "back, or align again with --sensor"
        )
    try:
        found = sensor_hash(path)
    except SensorError as error:
        raise SensorError(f"{named_in}: the sensor that it names can't be used: {error}") from error
    if found != sha256:
        raise SensorError(
            f"{named_in}: the sensor that it names, {path}, changed since it was aligned; align "
            "again, or put the former file back"
        )


def _size(shape: object) -> str:
    """Return a size from a file, which may be anything, as HxW."""
    return "x".join(map(str, shape))[:40] if isinstance(shape, list) else str(shape)[:40]
