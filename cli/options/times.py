"""Options about when frames were exposed: by the camera's clock, a table, a log, or simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..help_page import SIMULATED, TIMES

if TYPE_CHECKING:
    from ...pipeline.clocks.camera import CameraClock
    from ...pipeline.sequences.find_recording import ExposureTimes


def _duration(text: str) -> float:
    from ...pipeline.clocks.durations import TimelineError, parse_duration

    try:
        return parse_duration(text)
    except TimelineError as error:
        raise typer.BadParameter(str(error).removeprefix("a duration: ")) from error


def duration(what: str, **more: Any) -> Any:
    """Return an option that takes a DURATION: seconds, or a number with s, ms, us or ns."""
    return typer.Option(metavar="DURATION", parser=_duration, help=what, **more)


def _times(what: str) -> Any:
    return typer.Option(metavar="FILE.csv", help=what, rich_help_panel=TIMES)


def _seq(what: str) -> Any:
    return typer.Option(
        metavar="NAME", help=what, show_default="by the folder's name", rich_help_panel=TIMES
    )


FrameRate = Annotated[
    float | None,
    typer.Option(
        metavar="HZ",
        help="The camera's own frames a second, in the order of their names.",
        rich_help_panel=TIMES,
    ),
]
Shutter = Annotated[
    float | None,
    duration(
        "How long the camera exposed each frame, such as 16ms (bare: seconds).",
        rich_help_panel=TIMES,
    ),
]
Start = Annotated[
    float | None,
    duration(
        "When the first exposure began, on the spikes' clock.",
        show_default="0, or as --times says",
        rich_help_panel=TIMES,
    ),
]
Readout = Annotated[
    float | None,
    duration(
        "Rolling shutter: time from a frame's first row to its last; < 0: upwards. All other times "
        "are the first row's.",
        show_default="as align recorded, else all rows at once",
        rich_help_panel=TIMES,
    ),
]
Times = Annotated[
    Path | None,
    _times("Times of the exposures, or of trigger edges: see docs/how-to/own-camera.md."),
]
TimesOfEach = Annotated[
    list[Path] | None, _times("Times of the exposures of each --blur, in the same order.")
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.txt", help="Alignment log with the frames' times.", rich_help_panel=TIMES
    ),
]
Seq = Annotated[str | None, _seq("Sequence in the log.")]
SeqOfEach = Annotated[
    list[str] | None, _seq("Sequence in the log of each --blur, in the same order.")
]


def exposure_option(default: str | bool = True) -> Any:
    """Return the option --exposure; `default`: what stands in its help in place of a number."""
    return typer.Option(
        metavar="FRAMES",
        min=1,
        max=10**6,
        help="Sharp frames in a blurred one; odd.",
        show_default=default,
        rich_help_panel=SIMULATED,
    )


def fps_option(default: str | bool = True) -> Any:
    """Return the option --fps; `default`: what stands in its help in place of a number."""
    return typer.Option(
        metavar="HZ",
        help="Sharp frames a second; not those of the camera.",
        show_default=default,
        rich_help_panel=SIMULATED,
    )


def instants_option(what: str, default: str | bool = True, **more: Any) -> Any:
    """Return the option --instants; `default`: what stands in its help in place of a number."""
    return typer.Option(metavar="N", min=1, max=1000, help=what, show_default=default, **more)


Exposure = Annotated[int | None, exposure_option()]
Fps = Annotated[float | None, fps_option()]


def exposure_times(
    log: Path | None = None,
    seq: str | None = None,
    exposure: int | None = None,
    fps: float | None = None,
    step: int | None = None,
    camera: CameraClock | None = None,
) -> ExposureTimes:
    """Return what the user said about the frames' times.

    Raises:
        typer.BadParameter: it doesn't give the times, or gives them twice.
    """
    from ...pipeline.sequences.find_recording import ExposureTimes
    from ...pipeline.sequences.recording import RecordingError

    try:
        return ExposureTimes(camera=camera, log=log, seq=seq, exposure=exposure, fps=fps, step=step)
    except RecordingError as error:
        hint = "--log" if camera is None else "--frame-rate / --fps"
        raise typer.BadParameter(str(error), param_hint=hint) from error


def camera_clock(
    frame_rate: float | None = None,
    shutter: float | None = None,
    start: float | None = None,
    times: Path | None = None,
    fps: float | None = None,
    exposure: int | None = None,
) -> CameraClock | None:
    """Return what the user said about the clock of the colour camera; None: nothing.

    Raises:
        typer.BadParameter: values that can't be, or that say it twice, or not all of it.
    """
    if frame_rate is None and shutter is None and start is None and times is None:
        return None
    from ...pipeline.clocks.camera import FPS_OR_FRAME_RATE, CameraClock
    from ...pipeline.clocks.durations import TimelineError

    if fps is not None or exposure is not None:
        raise typer.BadParameter(FPS_OR_FRAME_RATE, param_hint="--frame-rate / --fps")
    try:
        return CameraClock(frame_rate=frame_rate, shutter=shutter, start=start, times=times)
    except TimelineError as error:
        hint = "--times" if times is not None else "--frame-rate / --shutter"
        raise typer.BadParameter(str(error), param_hint=hint) from error
