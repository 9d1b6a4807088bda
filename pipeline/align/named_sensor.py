"""The sensor's file that a manifest names for a sequence."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from ..spikes.named_sensor import require_sensor, sensor_hash
from ..spikes.settings import SpikeSettings
from .verification import Record

UNCORRECTED: Final = (
    "lags are measured on light that no sensor's file corrects: edges that move tell them, and a "
    "pattern that stands still does not"
)
"""What `align` and `check` say where a sequence has a sensor."""


def _require_relative(path: str) -> str:
    if PurePosixPath(path).is_absolute() or not path or "\x00" in path:
        raise ValueError("expected a relative path")
    return path


ClimbingPath = Annotated[str, AfterValidator(_require_relative)]
"""Relative path that may climb with `..`."""


class NamedSensor(Record):
    """The sensor's file by which a sequence's spike pixels are corrected."""

    file: ClimbingPath
    """Path of the file, relative to the manifest's root."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hex SHA-256 of its metadata; see `spikes.named_sensor`."""

    def at(self, root: Path, named_in: str | os.PathLike[str]) -> Path:
        """Return the path of the file.

        Args:
            root: the data set's folder.
            named_in: the manifest, for messages.

        Raises:
            SensorError: it isn't there, or changed since it was aligned.
        """
        path = Path(os.path.normpath(root / self.file))
        require_sensor(path, self.sha256, named_in)
        return path


def name_sensor(settings: SpikeSettings, root: Path) -> NamedSensor | None:
    """Return the sensor's file of these settings as a manifest names it; None: there is none.

    Raises:
        SensorError: it isn't there, or has another size than the spikes.
    """
    if settings.sensor is None:
        return None
    sha256 = sensor_hash(settings.sensor, settings.geometry.shape)
    relative = os.path.relpath(settings.sensor.resolve(), root.resolve())
    return NamedSensor(file=Path(relative).as_posix(), sha256=sha256)
