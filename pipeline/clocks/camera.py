"""What the user says about the clock of a colour camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..host.files import StrPath
from .durations import TimelineError, describe_duration
from .edges import on_grid
from .exposures import Exposures, require_shutter
from .table import read_times

FPS_OR_FRAME_RATE = (
    "--frame-rate, --shutter, --start and --times are about the frames that a camera took; --fps "
    "and --exposure count the sharp frames, never seen, that simulated blurred frames average; "
    "give one or the other"
)
"""What to say where both were given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraClock:
    """When a camera exposed its frames: at a constant rate, as a file says, or by their stamps.

    Raises:
        TimelineError: a value that can't be, two that exclude each other, or too few.
    """

    frame_rate: float | None = None
    """The camera's own frames a second, in Hz."""
    shutter: float | None = None
    """Length of every exposure, in seconds."""
    start: float | None = None
    """Instant at which the first exposure begins, in seconds on the spikes' clock. None: 0, or as
    `times` says."""
    times: StrPath | None = None
    """Table of exposures or log of trigger edges; see `table`."""

    def __post_init__(self) -> None:
        if self.times is not None and self.frame_rate is not None:
            raise TimelineError(
                "--times already says when each frame was exposed; leave --frame-rate out"
            )
        if self.times is None and self.shutter is None:
            what = "--start" if self.frame_rate is None else f"--frame-rate {self.frame_rate:g}"
            more = (
                "--frame-rate 30 and --shutter 16ms"
                if self.frame_rate is None
                else ("the length of an exposure, such as --shutter 16ms")
            )
            raise TimelineError(f"{what} alone does not say when frames were exposed; add {more}")
        if self.shutter is not None:
            require_shutter(self.shutter)
        if self.frame_rate is not None and self.shutter is not None:
            Exposures.regular([0], self.frame_rate, self.shutter)

    def exposures(self, names: Sequence[str], stamps: Sequence[float] | None = None) -> Exposures:
        """Return the exposure of each frame.

        Args:
            names: names of the frames' files, in order of time.
            stamps: time stamps of a video's frames, in seconds from the first; None: they have
                none.

        Raises:
            TimelineError: times that can't be, or do not fit the frames; names them.
        """
        if self.times is not None:
            return read_times(
                self.times, names, shutter=self.shutter, start=self.start, stamps=stamps
            )
        assert self.shutter is not None, "checked by __post_init__"
        start = self.start or 0.0
        if self.frame_rate is not None:
            places = range(len(names)) if stamps is None else on_grid(stamps)
            if places is None:
                raise TimelineError(
                    f"{names[0]} to {names[-1]}: expected time stamps a whole number of periods "
                    f"apart, since --frame-rate {self.frame_rate:g} is given, found others; leave "
                    "--frame-rate out to use the stamps themselves, or give --times"
                )
            return Exposures.regular(places, self.frame_rate, self.shutter, start)
        if stamps is None:
            raise TimelineError(
                f"{names[0]} to {names[-1]}: expected the camera's frame rate beside --shutter "
                f"{describe_duration(self.shutter)}, since images have no time stamps; add "
                "--frame-rate 30, or --times FILE.csv"
            )
        starts = [start + stamp for stamp in stamps]
        return Exposures.measured(
            starts,
            [at + self.shutter for at in starts],
            names,
            f"time stamps and --shutter {describe_duration(self.shutter)}",
        )
