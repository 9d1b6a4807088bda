"""`spikedeblur inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Geometry, Json
from .output import command_line, print_json, print_table, say, say_next

FileOrFolder = Annotated[
    str,
    typer.Argument(
        help="A .dat or its parts, sensor, manifest, log, store or URL, run, model or config.",
        metavar="PATH",
    ),
]


def inspect(
    path: FileOrFolder,
    geometry: Geometry = None,
    json: Json = False,
) -> None:
    """Say what a file or folder is, and what it holds.

    Such as the samples and rate of a .dat, or the parameters of a model.

    Example: spikedeblur inspect recording.dat --geometry 250x400,bottom-up
    """
    from ..pipeline.inspect import inspect as job

    described = job(path, geometry)
    if json:
        print_json(described)
        return
    say(f"{described.path}: {described.kind}")
    for name, value in described.facts.items():
        if described.kind == "spikes":  # --json keeps the name that scripts know
            name = name.replace("frame", "sample")
        say(f"  {name}: {value}")
    if described.table:
        print_table(described.table)
    if described.geometry is not None:
        say_next(command_line("view", path, "--geometry", described.geometry))
