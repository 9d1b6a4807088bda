"""Calibration files: a registration that was measured by other means, in JSON or YAML.

    {"homography": [[2.0, 0.0, 3.5], [0.0, 2.0, -1.0], [0.0, 0.0, 1.0]],
     "spike_size": [250, 400], "frame_size": [500, 800]}

The 3x3 matrix, or the first two rows of an affine one, maps (x, y, 1) in spike pixels to frame
pixels. Points are counted from the outer corner of the first pixel; with `"origin": "centre"`,
which is OpenCV's convention, from its centre.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, cast

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ...errors import SpikeDeblurError
from ..host.validation import first_problem
from ..spikes.registration import Matrix, Registration, RegistrationError


class CalibrationError(SpikeDeblurError):
    """A calibration file can't be read or used; the message names it."""


class _Calibration(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    homography: list[list[float]]
    spike_size: tuple[int, int]
    """(h, w) in pixels."""
    frame_size: tuple[int, int]
    """(H, W) in pixels."""
    origin: Literal["corner", "centre"] = "corner"
    """Point of the first pixel that is (0, 0)."""

    @field_validator("homography")
    @classmethod
    def _check_rows(cls, rows: list[list[float]]) -> list[list[float]]:
        lengths = [len(row) for row in rows]
        if lengths not in ([3, 3], [3, 3, 3]):
            raise ValueError(
                f"expected 3 rows of 3 numbers, or 2 of an affine matrix, found rows of {lengths}"
            )
        return rows


def read_calibration(path: str | os.PathLike[str]) -> Registration:
    """Return the registration that a calibration file holds.

    Raises:
        CalibrationError: missing, no JSON or YAML, or without a usable matrix.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        calibration = _Calibration.model_validate(content)
    except OSError as error:
        raise CalibrationError(
            f"{path}: can't read the calibration ({error.strerror}); check --calibration"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(
            f"{path}: expected a calibration in JSON or YAML, found something else; give "
            "homography, spike_size and frame_size"
        ) from error
    except ValidationError as error:
        raise CalibrationError(
            f"{path}: {first_problem(error)}; give homography (3x3), spike_size [h, w] and "
            "frame_size [H, W]"
        ) from error
    matrix = np.array([*calibration.homography, [0.0, 0.0, 1.0]][:3], np.float64)
    if calibration.origin == "centre":
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = half @ matrix @ np.linalg.inv(half)
    numbers = cast(Matrix, tuple(matrix.ravel().tolist()))
    try:
        return Registration(numbers, calibration.spike_size, calibration.frame_size)
    except RegistrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
