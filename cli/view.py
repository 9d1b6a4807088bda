"""`spikedeblur view`: look into a recording or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .options import between, spike_options
from .output import say


def view(
    path: Annotated[
        Path, typer.Argument(help="A .dat, a store, or a sequence in one.", metavar="PATH")
    ],
    geometry: options.Geometry = None,
    rate: options.Rate = None,
    gain: options.Gain = None,
    sensor: options.Sensor = None,
    since: options.From = None,
    until: options.To = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port of the page.", show_default="any that is free"),
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Show spikes, TFP, TFI, bins, rates and frames on a page, at any instant.

    The page is on this machine only (127.0.0.1). It opens to anyone who has the printed address,
    which holds a new key, and ends with Ctrl-C. From another machine, take a tunnel: ssh -L
    5006:127.0.0.1:5006 HOST, --port 5006 there, and the same address here. --geometry, --rate and
    --gain are for a .dat.

    Example: spikedeblur view data/quickstart.zarr
    """
    from ..pipeline.view import open_clips, serve

    part = between(since, until)
    groups = open_clips(path, spike_options(geometry, rate, gain, sensor=sensor, part=part))
    for group in groups:
        if group.finding is not None:
            say(f"warning: {group.name}: {group.finding}", err=True)
    serve(
        groups,
        port=port,
        browser=browser,
        on_ready=lambda url: say(f"{path}: {len(groups)} sequences at {url} (Ctrl-C ends)"),
    )
