"""A calibration file: where spike pixels lie in the colour frames, measured by other means.

    {"homography": [[2.0, 0.0, 3.5], [0.0, 2.0, -1.0], [0.0, 0.0, 1.0]],
     "spike_size": [250, 400], "frame_size": [500, 800]}

JSON or YAML. The 3x3 matrix, or the first two rows of an affine one, maps (x, y, 1) in spike
pixels to frame pixels. Points are counted from the outer corner of the first pixel; with
`"origin": "centre"`, as OpenCV does, from its centre.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import SpikeDeblurError
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


def read_calibration(path: str | os.PathLike[str]) -> Registration:
    """Read a calibration file.

    Raises:
        CalibrationError: missing, no JSON or YAML, or without a usable matrix.
    """
    try:
        content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        given = _Calibration.model_validate(content)
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
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CalibrationError(
            f"{path}: {place}: {first['msg']}; give homography (3x3), spike_size [h, w] and "
            "frame_size [H, W]"
        ) from error
    rows = given.homography
    if [len(row) for row in rows] not in ([3, 3], [3, 3, 3]):
        raise CalibrationError(
            f"{path}: expected homography as 3 rows of 3 numbers, or 2 of an affine matrix, "
            f"found rows of {[len(row) for row in rows]}"
        )
    matrix = np.array([*rows, [0.0, 0.0, 1.0]][:3], np.float64)
    if given.origin == "centre":
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = half @ matrix @ np.linalg.inv(half)
    a, b, c, d, e, f, g, h, i = (float(value) for value in matrix.ravel())
    whole: Matrix = (a, b, c, d, e, f, g, h, i)
    try:
        return Registration(whole, given.spike_size, given.frame_size)
    except RegistrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
