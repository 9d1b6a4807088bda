"""`spikedeblur view`: look into a recording or a store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..pipeline.host.reporter import counted
from . import options
from .options import between, camera_clock, exposure_times, leave_out, spike_options
from .output import say

PAGE = "Page"

_OF_FRAMES = (
    *("frame_rate", "shutter", "start", "readout", "times", "log", "seq", "exposure", "fps"),
    *("first", "calibration"),
)
"""Parameters that say something about the blurred frames, or how they and the spikes lie."""


DatOrStore = Annotated[
    Path, typer.Argument(help="A .dat, a store, or a sequence in one.", metavar="PATH")
]
Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        help="Port of the page.",
        show_default="any that is free",
        metavar="PORT",
        rich_help_panel=PAGE,
    ),
]
Browser = Annotated[bool, typer.Option(help="Open a browser.", rich_help_panel=PAGE)]


def view(
    context: typer.Context,
    path: DatOrStore,
    blur: options.Blur = None,
    frame_rate: options.FrameRate = None,
    shutter: options.Shutter = None,
    start: options.Start = None,
    readout: options.Readout = None,
    times: options.Times = None,
    log: options.Log = None,
    seq: options.Seq = None,
    exposure: options.Exposure = None,
    fps: options.Fps = None,
    geometry: options.Geometry = None,
    rate: options.Rate = None,
    gain: options.Gain = None,
    first: options.First = None,
    calibration: options.Calibration = None,
    sensor: options.Sensor = None,
    since: options.From = None,
    until: options.To = None,
    port: Port = 0,
    browser: Browser = True,
) -> None:
    """Show spikes, TFP, TFI, a bin, light, or what `path` restores, at any instant.

    With --blur, the blurred frame stands beside the spikes of its exposure; a store has its frames.
    The page is on this machine only (127.0.0.1). It opens to anyone who has the printed address,
    which holds a new key, and ends with Ctrl-C. From another machine, take a tunnel: ssh -L
    5006:127.0.0.1:5006 HOST, --port 5006 there, and the same address here. --geometry, --rate and
    --gain are for a .dat.

    Example: spikedeblur view data/quickstart.zarr

    With frames: spikedeblur view spike.dat --blur frames --frame-rate 30 --shutter 16ms
    """
    from ..pipeline.sequences.find_recording import find_recording
    from ..pipeline.view import open_clips, open_recording, serve

    part = between(since, until)
    spiking = spike_options(geometry, rate, gain, first, calibration, readout, sensor, part)
    with tempfile.TemporaryDirectory() as decoded:
        if blur is None:
            leave_out(context, _OF_FRAMES, "these are of blurred frames, and there is no --blur")
            groups = open_clips(path, spiking)
        else:
            clock = camera_clock(frame_rate, shutter, start, times, fps, exposure)
            exposed = exposure_times(log, seq, exposure, fps, None, clock)
            recording = find_recording(blur, path, exposed, spiking, decode_to=decoded)
            for warning in recording.settings.warnings:
                say(warning, err=True, label="warning")
            groups = (open_recording(recording),)
        for group in groups:
            if group.finding is not None:
                say(f"{group.name}: {group.finding}", err=True, label="warning")
        what = counted(len(groups), "sequence")
        serve(
            groups,
            port=port,
            browser=browser,
            on_ready=lambda url: say(f"{path}: {what} at {url} (Ctrl-C ends)"),
        )
