"""`spikedeblur convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..pipeline.host.reporter import counted
from .options import From, Gain, Geometry, Json, Rate, To, between, overwrites
from .output import command_line, report, require_writable

Source = Annotated[Path, typer.Argument(metavar="IN", help=".npy, .npz, .h5 or .dat.")]
Out = Annotated[Path, typer.Argument(metavar="OUT.dat", help="The spike file to write.")]
Key = Annotated[
    str | None, typer.Option(help="Array to take from an .npz or HDF5 file.", metavar="NAME")
]


def convert(
    source: Source,
    out: Out,
    geometry: Geometry = None,
    rate: Rate = None,
    gain: Gain = None,
    key: Key = None,
    since: From = None,
    until: To = None,
    overwrite: Annotated[bool, overwrites("OUT.dat")] = False,
    json: Json = False,
) -> None:
    """Write spikes of another tool as a packed, bottom-up .dat with a side file.

    Geometry, rate and gain are those of IN; the side file records them. With --from and --to, OUT
    is a part of IN, whose samples keep their times.

    Example: spikedeblur convert recording.npy spike.dat --rate 20000 --gain 0.5
    """
    from ..pipeline.spikes.convert import Taken
    from ..pipeline.spikes.convert import convert as job
    from .progress import progress_bar

    require_writable(out)
    with progress_bar("Converting", "samples") as reporter:
        summary = job(
            source,
            out,
            geometry=geometry,
            rate=rate,
            gain=gain,
            taken=Taken(key=key, between=between(since, until)),
            overwrite=overwrite,
            reporter=reporter,
        )
    report(
        summary,
        f"{counted(summary.frames, 'sample')} of {summary.height}x{summary.width} with "
        f"{counted(summary.spikes, 'spike')} in {summary.out} ({summary.bytes} bytes)",
        next_command=command_line("inspect", out),
        json=json,
    )
