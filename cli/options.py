"""Options that several commands share, each with its type and help once.

A command writes `gain: Gain = None`; commands differ in the default, and in their own help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .completion import models, offered, presets
from .help_page import FRAMES, MODEL, OUTPUT, SIMULATED, SPIKES, TIMES

if TYPE_CHECKING:
    from ..pipeline.clocks.camera import CameraClock
    from ..pipeline.sequences.find_recording import ExposureTimes
    from ..pipeline.spikes.between import Between
    from ..pipeline.spikes.settings import SpikeOptions


def _duration(text: str) -> float:
    from ..pipeline.clocks.durations import TimelineError, parse_duration

    try:
        return parse_duration(text)
    except TimelineError as error:
        raise typer.BadParameter(str(error).removeprefix("a duration: ")) from error


def _geometry(spec: str | None) -> str | None:
    if spec is not None:
        from ..pipeline.spikes.geometry import SpikeGeometryError
        from ..pipeline.spikes.presets import parse_geometry
        from .mistakes import did_you_mean

        try:
            parse_geometry(spec)
        except SpikeGeometryError as error:
            what = str(error).removeprefix("geometry ")
            if near := did_you_mean(spec, presets()):
                what = f"{what.partition(';')[0]}; {near}"
            raise typer.BadParameter(what) from error
    return spec


def _instant(text: str, name: str) -> float:
    from ..pipeline.clocks.durations import TimelineError, parse_instant

    try:
        return parse_instant(text, name)
    except TimelineError as error:
        raise typer.BadParameter(str(error)) from error


def duration(what: str, **more: Any) -> Any:
    """Return an option that takes a DURATION: seconds, or a number with s, ms, us or ns."""
    return typer.Option(metavar="DURATION", parser=_duration, help=what, **more)


# One recording: frames, their times, and spikes.
Blur = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of blurred frames, with --fps named by number (0031.png); one image; an MP4.",
        rich_help_panel=FRAMES,
    ),
]
Spikes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.dat",
        help="The .dat stream that holds their exposures; its parts: a folder, 'rec_*.dat'.",
        rich_help_panel=FRAMES,
    ),
]
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
    typer.Option(
        metavar="FILE.csv",
        help="Times of the exposures, or of trigger edges: see docs/how-to/own-camera.md.",
        rich_help_panel=TIMES,
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.txt", help="Alignment log with the frames' times.", rich_help_panel=TIMES
    ),
]
Seq = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Sequence in the log.",
        show_default="by the folder's name",
        rich_help_panel=TIMES,
    ),
]
Exposure = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=10**6,
        help="Sharp frames in a blurred one; odd.",
        rich_help_panel=SIMULATED,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        metavar="HZ",
        help="Sharp frames a second; not those of the camera.",
        rich_help_panel=SIMULATED,
    ),
]

# The spike camera; `spike_options` takes them together.
Geometry = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        callback=_geometry,
        autocompletion=offered(presets),
        help="Preset, HxW,bottom-up or HxW,top-down; then, each after a comma, what applies of "
        "padded, msb-first, bayer=RGGB, drop=A:B and columns=A:B.",
        show_default="side file",
        rich_help_panel=SPIKES,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="HZ",
        help="Spike samples a second.",
        show_default="side file or preset",
        rich_help_panel=SPIKES,
    ),
]
Gain = Annotated[
    float | None,
    typer.Option(
        metavar="GAIN",
        help="Spikes a sample at unit luminance.",
        show_default="side file or preset",
        rich_help_panel=SPIKES,
    ),
]
First = Annotated[
    float | None,
    duration(
        "When the first spike sample was taken.",
        show_default="side file, else 0",
        rich_help_panel=SPIKES,
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON or YAML: homography from spike to frame pixels.",
        show_default="what align found, else both cameras see the same",
        rich_help_panel=SPIKES,
    ),
]
Sensor = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File that `calibrate` wrote: corrects gain, dark rate, hot and dead spike pixels.",
        show_default="side file, else pixels are taken as equal",
        rich_help_panel=SPIKES,
    ),
]

Curve = Annotated[
    Literal["linear", "srgb"] | None,
    typer.Option(
        help="What the frames' numbers are: codes of sRGB, which are decoded for all work and "
        "encoded again, or linear light.",
        show_default="as the spikes tell",
        rich_help_panel=FRAMES,
    ),
]

# A part of the recording; `between` takes both.
From = Annotated[
    float | None,
    typer.Option(
        "--from",
        metavar="TIME",
        parser=lambda text: _instant(text, "--from"),
        help="Read the recording from this time on its clock, such as 30s or 250ms.",
        show_default="its first sample",
        rich_help_panel=FRAMES,
    ),
]
To = Annotated[
    float | None,
    typer.Option(
        "--to",
        metavar="TIME",
        parser=lambda text: _instant(text, "--to"),
        help="Read it up to this time. Frames that are not exposed wholly between are left out.",
        show_default="its last sample",
        rich_help_panel=FRAMES,
    ),
]

# The trained model; `trained_model` takes both.
Run = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Run folder of a trained model: a path or a URL.",
        rich_help_panel=MODEL,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        autocompletion=offered(models),
        help="Exported model, a file or a URL; or `small`, which ships.",
        rich_help_panel=MODEL,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=0,
        max=2**15,
        help="Side of the model's tiles; 0: whole frames.",
        show_default="whole up to 512x512, else 256; less if memory is short",
        rich_help_panel=MODEL,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Go on where spikes and frames are not alike at any lag.",
        rich_help_panel=TIMES,
    ),
]
Flips = Annotated[
    bool,
    typer.Option(
        "--flips",
        help="Mean over four mirrored copies: four times the time, a little better.",
        rich_help_panel=MODEL,
    ),
]

Split = Literal["train", "val", "test"]

Json = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=OUTPUT)
]


def overwrites(what: str) -> Any:
    """Return the option --overwrite of a command; `what` says in its help what is replaced."""
    return typer.Option("--overwrite", help=f"Replace {what}.", rich_help_panel=OUTPUT)


def spike_options(
    geometry: str | None = None,
    rate: float | None = None,
    gain: float | None = None,
    first: float | None = None,
    calibration: Path | None = None,
    readout: float | None = None,
    sensor: Path | None = None,
    part: Between | None = None,
) -> SpikeOptions:
    """Return what the user said about the spike camera, and how the frames' rows see it."""
    from ..pipeline.spikes.settings import SpikeOptions

    return SpikeOptions(
        geometry=geometry,
        rate=rate,
        gain=gain,
        first=first,
        calibration=calibration,
        readout=readout,
        sensor=sensor,
        between=part,
    )


def between(since: float | None, until: float | None) -> Between | None:
    """Return the part of a recording that --from and --to name; None: all of it.

    Raises:
        typer.BadParameter: the end is not after the start.
    """
    if since is None and until is None:
        return None
    from ..pipeline.spikes.between import Between
    from ..pipeline.spikes.clock import SpikeWindowError

    try:
        return Between(start=since, end=until)
    except SpikeWindowError as error:
        raise typer.BadParameter(str(error), param_hint="--from / --to") from error


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
    from ..pipeline.sequences.find_recording import ExposureTimes
    from ..pipeline.sequences.recording import RecordingError

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
    from ..pipeline.clocks.camera import FPS_OR_FRAME_RATE, CameraClock
    from ..pipeline.clocks.durations import TimelineError

    if fps is not None or exposure is not None:
        raise typer.BadParameter(FPS_OR_FRAME_RATE, param_hint="--frame-rate / --fps")
    try:
        return CameraClock(frame_rate=frame_rate, shutter=shutter, start=start, times=times)
    except TimelineError as error:
        hint = "--times" if times is not None else "--frame-rate / --shutter"
        raise typer.BadParameter(str(error), param_hint=hint) from error


def leave_out(context: typer.Context, parameters: Sequence[str], because: str) -> None:
    """Refuse options (exit code 2) that were typed though another one makes them needless."""
    needless = [f"--{name.replace('_', '-')}" for name in typed(context, parameters)]
    if needless:
        raise typer.BadParameter(f"{because}; leave out {', '.join(needless)}")


def typed(context: typer.Context, parameters: Sequence[str]) -> list[str]:
    """Return those of some parameters that were given on the command line."""
    # By name, because the class is click's or Typer's own, by Typer's version.
    return [
        name
        for name in parameters
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]


def trained_model(run: str | Path | None, model: str | None) -> Path | None:
    """Return the run folder or the file of an exported model; None: neither is given.

    A URL is fetched first.

    Raises:
        typer.BadParameter: both are given.
        TrainedModelError: no such model.
    """
    if run is not None and model is not None:
        raise typer.BadParameter("--run and --model both name the model; leave one out")
    from ..pipeline.weights.find import fetched, find_model, require_trained

    if run is not None:
        return require_trained(fetched(run))
    return None if model is None else require_trained(find_model(model))
