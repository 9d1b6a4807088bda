"""`spikedeblur inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Geometry, Json


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A .dat, manifest, log, store, run, checkpoint, model or config.")
    ],
    geometry: Geometry = None,
    json: Json = False,
) -> None:
    """Say what a file or folder is: the frames and rate of a .dat, the parameters of a model.

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
