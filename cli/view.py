"""`spikedeblur view`: look into a recording or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    path: Annotated[
        Path, typer.Argument(help="A .dat, a store, or a sequence in one.", metavar="PATH")
    ],
    geometry: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Geometry of a .dat without side file.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="Spike samples a second of a .dat.")
    ] = None,
    gain: Annotated[
        float | None, typer.Option(help="Spikes a sample at unit luminance of a .dat.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page.", show_default="any that is free")
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Show spikes, TFP, TFI, bins, rates and frames on a page, at any instant.

    The page is on this machine only (127.0.0.1), for who has the address that is printed, with a
    new key in it, and ends with Ctrl-C. From another machine, take a tunnel: ssh -L
    5006:127.0.0.1:5006 HOST, --port 5006 there, and the same address here.

    Example: spikedeblur view data/quickstart.zarr
    """
    from ..pipeline.view import open_clips, serve

    groups = open_clips(path, geometry=geometry, rate=rate, gain=gain)
    serve(
        groups,
        port=port,
        browser=browser,
        on_ready=lambda url: typer.echo(f"{path}: {len(groups)} sequences at {url} (Ctrl-C ends)"),
    )
