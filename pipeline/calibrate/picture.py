"""The picture of a calibration: gains, dark rates, bad pixels, and how the gains are spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...version import __version__
from ..frames.panels import Row, draw_panels
from ..host.files import atomic_write
from ..spikes.sensor import Mask, Plane, Sensor
from .measure import Figures

_SOFTWARE = "spikedeblur calibrate"
_SMALLEST, _LARGE = 240, 200
"""Least width of a panel, and sides from which marks are wider than a pixel, in pixels."""
_HOT, _DEAD = (230, 40, 30), (40, 90, 255)

RGB = npt.NDArray[np.uint8]


def is_own_picture(path: Path) -> bool:
    """Whether a file is a picture of a former calibration."""
    with Image.open(path, formats=("PNG",)) as image:
        return str(image.info.get("Software", "")).startswith(_SOFTWARE)


def write_picture(
    path: Path, sensor: Sensor, figures: Figures, errors: Plane | None = None
) -> None:
    """Write a PNG of gains, dark rates, bad pixels, and a histogram of the gains.

    Where a moving scene told the gains, a third row shows how surely: black where it told nothing.
    """
    good = ~(sensor.hot | sensor.dead)
    reach = max(3 * float(sensor.gain[good].std()), 0.01)
    brightest = max(2 * float(np.quantile(sensor.dark[good], 0.99)), 1e-6)
    gains = _gray((sensor.gain - 1 + reach) / (2 * reach))
    marked = gains // 2 + 64
    marked[_wide(sensor.hot)] = _HOT
    marked[_wide(sensor.dead)] = _DEAD
    rows = [
        Row(
            _title(figures),
            [
                (f"gain {1 - reach:.2f} to {1 + reach:.2f}", gains),
                (f"dark rate 0 to {brightest:.2g} spikes a sample", _gray(sensor.dark / brightest)),
            ],
        ),
        Row(
            "",
            [
                (f"{figures.hot} hot (red), {figures.dead} dead (blue)", marked),
                (f"pixels by gain, {1 - reach:.2f} to {1 + reach:.2f}", _bars(sensor, reach)),
            ],
        ),
    ]
    if errors is not None and figures.spread_before:
        sure = 1 - errors / np.float32(figures.spread_before)
        row = [(f"{figures.told or 0:.0%} of the gains told (white: surely)", _gray(sure))]
        rows.append(Row("", [*row, (f"error 0 to {reach:.2f}", _gray(errors / reach))]))
    zoom = -(-_SMALLEST // sensor.shape[1])
    mark = PngInfo()
    mark.add_text("Software", f"{_SOFTWARE} {__version__}")
    picture = Image.fromarray(draw_panels(rows, zoom))
    with atomic_write(path) as file:
        picture.save(file, format="PNG", pnginfo=mark)


def _title(figures: Figures) -> str:
    if figures.spread_before is not None and figures.told is not None:
        return f"gains spread by {figures.spread_before:.1%}, by a scene, to {figures.error:.1%}"
    if figures.spread_before is None or figures.spread_after is None:
        return "gains not measured"
    return f"gains spread by {figures.spread_before:.1%}, corrected by {figures.spread_after:.2%}"


def _gray(values: Plane) -> RGB:
    """Return values of 0 to 1, (H, W), as gray (H, W, 3)."""
    levels = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


def _wide(mask: Mask) -> Mask:
    """Return a mask whose pixels are 3x3 where the sensor is large."""
    if min(mask.shape) < _LARGE:
        return mask
    wide = mask.copy()
    for axis in (0, 1):
        before = wide.copy()
        for step in (-1, 1):
            wide |= np.roll(before, step, axis)
    return wide


def _bars(sensor: Sensor, reach: float) -> RGB:
    """Return a histogram of the good pixels' gains, as large as the sensor."""
    height, width = sensor.shape
    number, _ = np.histogram(
        sensor.gain[~(sensor.hot | sensor.dead)], bins=min(width, 64), range=(1 - reach, 1 + reach)
    )
    heights = np.rint(number / max(number.max(), 1) * height).astype(int)
    column = heights[np.arange(width) * len(heights) // width]
    filled = np.arange(height)[:, None] >= height - column[None]
    return np.where(filled[..., None], np.uint8(60), np.uint8(235)).repeat(3, axis=-1)
