"""`spikedeblur restore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..pipeline.host.reporter import counted
from . import options
from .completion import one_of, restoring_methods
from .help_page import FRAMES, MODEL, OUTPUT, SIMULATED
from .options import (
    between,
    camera_clock,
    exposure_times,
    leave_out,
    overwrites,
    spike_options,
    trained_model,
)
from .output import report, require_writable

if TYPE_CHECKING:
    from ..pipeline.restore.job import RestoreSummary

_OF_ONE_RECORDING = (
    *("blur", "spikes", "frame_rate", "shutter", "start", "times", "log", "seq", "exposure", "fps"),
    *("rate", "geometry", "gain", "first", "calibration", "readout", "step", "video"),
)
"""Parameters that a manifest makes needless."""


Out = Annotated[
    Path,
    typer.Option(
        help="Folder for the sharp frames: <frame>.png, or <seq>/<frame>.png.",
        metavar="FOLDER",
        rich_help_panel=OUTPUT,
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        help="Instead of one recording: all that `align` put in this manifest.",
        metavar="FILE.json",
        rich_help_panel=FRAMES,
    ),
]
SplitOfManifest = Annotated[
    options.Split | None,
    typer.Option(help="Split of the manifest.", show_default="all", rich_help_panel=FRAMES),
]
Method = Annotated[
    str,
    typer.Option(
        help="Without a model: path, sdm, tfp, tfi or blur.",
        metavar="METHOD",
        **one_of(restoring_methods),
        rich_help_panel=MODEL,
    ),
]
ShortBins = Annotated[
    int,
    typer.Option(
        min=1,
        max=32,
        help="Short window of sdm and tfp, in bins of 32 an exposure.",
        metavar="N",
        rich_help_panel=MODEL,
    ),
]
FramesPerExposure = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="Sharp frames from each blurred one, <frame>_<m>.png.",
        metavar="N",
        rich_help_panel=OUTPUT,
    ),
]
Step = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10**6,
        help="With an MP4 and --fps: sharp frames from one blurred frame to the next.",
        show_default="the exposure",
        metavar="N",
        rich_help_panel=SIMULATED,
    ),
]
Bits = Annotated[
    Literal["8", "16"],
    typer.Option(help="Bits of a channel in the PNGs; 16 need OpenCV.", rich_help_panel=OUTPUT),
]
Headroom = Annotated[
    int,
    typer.Option(
        min=1,
        max=16,
        help="With --bits 16: the brightest light kept, in the frame's white. Spikes tell what "
        "the frame clips; white is then 65535 / headroom, as restore.json says.",
        metavar="TIMES",
        rich_help_panel=OUTPUT,
    ),
]
Video = Annotated[
    Path | None,
    typer.Option(
        help="MP4 to write of all sharp frames; needs PyAV.",
        metavar="FILE.mp4",
        rich_help_panel=OUTPUT,
    ),
]
VideoFps = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=1e4,
        help="Frames a second at which it plays.",
        metavar="HZ",
        rich_help_panel=OUTPUT,
    ),
]


def restore(
    context: typer.Context,
    out: Out,
    blur: options.Blur = None,
    spikes: options.Spikes = None,
    manifest: Manifest = None,
    split: SplitOfManifest = None,
    run: options.Run = None,
    model: options.Model = None,
    method: Method = "model",
    frame_rate: options.FrameRate = None,
    shutter: options.Shutter = None,
    start: options.Start = None,
    readout: options.Readout = None,
    times: options.Times = None,
    log: options.Log = None,
    seq: options.Seq = None,
    exposure: options.Exposure = None,
    fps: options.Fps = None,
    rate: options.Rate = None,
    geometry: options.Geometry = None,
    gain: options.Gain = None,
    first: options.First = None,
    calibration: options.Calibration = None,
    sensor: options.Sensor = None,
    curve: options.Curve = None,
    since: options.From = None,
    until: options.To = None,
    tile: options.Tile = None,
    flips: options.Flips = False,
    short_bins: ShortBins = 5,
    frames_per_exposure: FramesPerExposure = 1,
    step: Step = None,
    bits: Bits = "8",
    headroom: Headroom = 1,
    video: Video = None,
    video_fps: VideoFps = 30.0,
    force: options.Force = False,
    overwrite: Annotated[bool, overwrites("frames made from other inputs")] = False,
    json: options.Json = False,
) -> None:
    """Restore a sharp frame from each blurred one and its spikes.

    Needs a trained model (--model small, or --run), or a method without one (--method path). A run
    that was stopped goes on where it was.

    Example: spikedeblur restore --model small --blur frames --spikes spike.dat --frame-rate 30
    --shutter 16ms --out sharp

    All recordings of a data set: spikedeblur restore --model small --manifest manifest.json
    --split test --out sharp
    """
    from ..pipeline.frames.colours import convertible_colours
    from ..pipeline.frames.video import require_new_video, write_video
    from ..pipeline.host.allocator import keep_freed_memory, share_freed_memory_among_threads
    from ..pipeline.restore import job
    from ..pipeline.restore.record import restored_files
    from ..pipeline.sequences.find_recording import find_recording
    from .progress import progress_bar

    require_writable(out, video)
    part = between(since, until)
    if video is not None:
        if bits == "16":
            raise typer.BadParameter("an MP4 is made of 8-bit frames", param_hint="--bits")
        require_new_video(video, overwrite=overwrite)
    try:
        how = job.Restoring(
            run=run or model,
            method=method,
            tile=tile,
            flips=flips,
            short_bins=short_bins,
            frames_per_exposure=frames_per_exposure,
            bits=16 if bits == "16" else 8,
            headroom=headroom,
            curve=curve,
            force=force,
        )
    except job.RestoreError as error:
        raise typer.BadParameter(str(error)) from error
    how = replace(how, run=trained_model(run, model))
    summary: job.RestoreSummary | job.RestoreManifestSummary
    keep_freed_memory()
    share_freed_memory_among_threads()
    with progress_bar("Restoring", "frames") as reporter:
        if manifest is not None:
            already = "--manifest already gives these for each recording"
            leave_out(context, _OF_ONE_RECORDING, already)
            summary = job.restore_manifest(
                manifest,
                out,
                how,
                split=split,
                sensor=sensor,
                between=part,
                overwrite=overwrite,
                reporter=reporter,
            )
            words = f" of {counted(len(summary.recordings), 'recording')} restored by {method}"
        elif blur is None or spikes is None or split is not None:
            raise typer.BadParameter(
                "one recording needs --blur and --spikes; or give --manifest, and its --split",
                param_hint="--blur / --spikes / --manifest",
            )
        else:
            clock = camera_clock(frame_rate, shutter, start, times, fps, exposure)
            exposed = exposure_times(log, seq, exposure, fps, step, clock)
            spiking = spike_options(geometry, rate, gain, first, calibration, readout, sensor, part)
            recording = find_recording(blur, spikes, exposed, spiking, decode_to=out)
            for exposed_frame in recording.exposures if video is not None else ():
                convertible_colours(exposed_frame.path)
            summary = job.restore(recording, out, how, overwrite=overwrite, reporter=reporter)
            words = f" restored by {method}"
            words += f" in tiles of {summary.tile}" if summary.tile else ""
    if video is not None:
        write_video(video, restored_files(out), video_fps, overwrite=overwrite)
    recordings = (summary,) if isinstance(summary, job.RestoreSummary) else summary.recordings
    taken = _gains(recordings)
    if any(summary.curve == "srgb" for summary in recordings):
        taken += ", frames taken as sRGB"
    kept = f", {summary.kept} there already" if summary.kept else ""
    written = "" if video is None else f"; {video}"
    outside = f", {summary.left_out} not wholly in {part} left out" if summary.left_out else ""
    done = f"{counted(summary.restored, 'frame')}{words} in {out}{taken}{kept}{outside}{written}"
    report(summary, done, json=json)


def _gains(recordings: Sequence[RestoreSummary]) -> str:
    """Return the gain that was taken, and where it is from."""
    words = ""
    for measured, where in ((False, ""), (True, " as the blurred frames show it")):
        gains = sorted(r.gain for r in recordings if r.gain and r.gain_measured == measured)
        if gains:
            ends = dict.fromkeys(f"{gain:.4g}" for gain in (gains[0], gains[-1]))
            words += f", gain {' to '.join(ends)}{where}"
    return words
