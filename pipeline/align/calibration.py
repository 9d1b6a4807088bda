"""Calibration files: a registration that was measured by other means, in JSON or YAML.

    {"homography": [[2.0, 0.0, 3.5], [0.0, 2.0, -1.0], [0.0, 0.0, 1.0]],
     "spike_size": [250, 400], "frame_size": [500, 800]}

The 3x3 matrix, or the first two rows of an affine one, maps (x, y, 1) in spike pixels to frame
pixels. Points are counted from the outer corner of the first pixel; with `"origin": "centre"`,
which is OpenCV's convention, from its centre.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...errors import SpikeDeblurError
from ..host.validation import read_checked
from ..spikes.registration import Matrix, Registration, RegistrationError

_REMEDY = "give homography (3x3, or 2x3), spike_size [h, w] and frame_size [H, W]"


class CalibrationError(SpikeDeblurError):
    """A calibration file can't be read or used; the message names it."""


class _Calibration(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    homography: Annotated[list[tuple[float, float, float]], Field(min_length=2, max_length=3)]
    """Rows of the matrix."""
    spike_size: tuple[int, int]
    """(h, w) in pixels."""
    frame_size: tuple[int, int]
    """(H, W) in pixels."""
    origin: Literal["corner", "centre"] = "corner"
    """Point of the first pixel that is (0, 0)."""


def read_calibration(path: str | os.PathLike[str]) -> Registration:
    """Return the registration that a calibration file holds.

    Raises:
        CalibrationError: missing, no JSON or YAML, or without a usable matrix.
    """
    calibration = read_checked(path, _Calibration, CalibrationError, "a calibration", _REMEDY)
    matrix = np.array([*calibration.homography, [0.0, 0.0, 1.0]][:3], np.float64)
    if calibration.origin == "centre":
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = half @ matrix @ np.linalg.inv(half)
    numbers = cast(Matrix, tuple(matrix.ravel().tolist()))
    try:
        return Registration(numbers, calibration.spike_size, calibration.frame_size)
    except RegistrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
