"""When frames were exposed: by a camera's frame rate, a table, trigger edges, or frame numbers.

All of them come to `Exposures`, and only `Exposures.windows` turns these into windows of samples.
"""

from .camera import CameraClock
from .durations import TimelineError, parse_duration
from .exposures import Exposures, exposure_window

__all__ = [
    "CameraClock",
    "Exposures",
    "TimelineError",
    "exposure_window",
    "parse_duration",
]
