"""`spikedeblur export`: a run's best model as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(help="Run folder that `train` wrote: a path or a URL.")],
    out: Annotated[Path, typer.Argument(help="File to write, *.safetensors.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Write the best weights of a run, with their configuration, as one safe file.

    Example: spikedeblur export outputs/mine mine.safetensors
    """
    from ..pipeline.trained import export_model
    from .output import command_line, require_local, say_next

    require_local(out, "OUT")
    facts = export_model(run, out, overwrite=overwrite)
    typer.echo(
        f"{out}: {facts['parameters'] / 1e6:.2f} M parameters of step {facts['step']}, validation "
        f"{facts['validation_psnr'] or float('nan'):.2f} dB, {out.stat().st_size / 1e6:.1f} MB"
    )
    say_next(f"{command_line('restore', '--model', out)} --blur DIR --spikes FILE.dat")
