"""Does a sensor's file belong to a recording? By size, by filters, and by its pattern."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..spikes.between import Cut
from ..spikes.geometry import SpikeGeometry
from ..spikes.parts import open_stream
from ..spikes.presets import parse_geometry
from ..spikes.sensor import SensorError
from .sensor_file import SensorFile

_MOST_LOOKED_AT = 4096
"""Most samples that are looked at for the pattern of a sensor."""
_CLEARLY = 0.1
"""Difference of correlations that is no chance."""
_FAINT = 1e-3


def require_fit(file: SensorFile, where: str, geometry: SpikeGeometry) -> None:
    """Refuse a sensor of another size than spikes, or spikes under colour filters.

    Args:
        file: the sensor's file.
        where: the recording or sequence, for messages.
        geometry: how its spikes lie.

    Raises:
        SensorError: it is so.
    """
    if geometry.shape != file.sensor.shape:
        (height, width), (h, w) = file.sensor.shape, geometry.shape
        raise SensorError(
            f"{file.path}: expected a sensor of {h}x{w} pixels, as the spikes of {where} have, "
            f"found one of {height}x{width}; give the sensor of this camera"
        )
    if geometry.bayer is not None:
        raise SensorError(
            f"{file.path}: a sensor's file can't correct spikes under colour filters, and {where} "
            f"has {geometry.describe()}; leave the sensor out"
        )


def require_same_way_up(
    file: SensorFile, dat: Path, geometry: SpikeGeometry, cut: Cut | None = None
) -> None:
    """Refuse a sensor whose pattern the recording, or a part of it, shows upside down.

    Files of one camera may have their rows in either order, as long as geometries say which. Where
    the geometries agree in it, nothing is read, else only samples of `cut`.

    Raises:
        SensorError: it is so.
    """
    if parse_geometry(file.record.geometry).flip_rows == geometry.flip_rows:
        return
    stream = open_stream(dat, geometry, cut)
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
