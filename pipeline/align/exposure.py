"""Frame numbers from file names, and exposures from them, by their former names."""

from __future__ import annotations

from ..clocks.durations import TimelineError as TimelineError
from ..clocks.exposures import exposure_window as exposure_window
from ..frames.listing import INTERPOLATION as INTERPOLATION
from ..frames.listing import names_are_interpolated as names_are_interpolated
from ..frames.listing import parse_frame_name as parse_frame_name
