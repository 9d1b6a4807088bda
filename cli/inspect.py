"""`spikedeblur inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A .dat, manifest, log, store, run, checkpoint or config.")
    ],
    geometry: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Geometry of a .dat without side file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Say what a file or folder is: geometry and rate of spikes, parameters of a config, ...

    Example: spikedeblur inspect recording.dat --geometry 250x400,bottom-up
    """
    from ..pipeline.inspect import inspect as job
    from .output import print_table, report

    found = job(path, geometry)
    if json:
        report(found, "", json=True)
        return
    typer.echo(f"{found.path}: {found.kind}")
    for name, value in found.facts.items():
        typer.echo(f"  {name}: {value}")
    if found.table:
        print_table(found.table)
