"""`spikedeblur runs`: trained runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def runs(
    folder: Annotated[
        Path, typer.Argument(help="Folder with run folders.", show_default="outputs")
    ] = Path("outputs"),
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare runs: the best first, with the keys of the configuration by which they differ.

    Example: spikedeblur runs outputs
    """
    import dataclasses
    import json as json_format

    from ..pipeline.train.run.runs import list_runs
    from .output import print_table

    found = list_runs(folder)
    if json:
        typer.echo(json_format.dumps([dataclasses.asdict(run) for run in found], indent=2))
        return
    rows: list[tuple[str, ...]] = [("run", "steps", "minutes", "dB", "over blur", "at step")]
    for run in found:
        scores = ("", "", "")
        if run.best_psnr is not None and run.psnr_blur is not None:
            over = run.best_psnr - run.psnr_blur
            scores = (f"{run.best_psnr:.2f}", f"{over:+.2f}", str(run.best_step))
        rows.append((run.run, str(run.step), f"{run.seconds / 60:.1f}", *scores))
    print_table(rows)
    if found[0].settings:
        print_table(
            [
                ("differ in", *(run.run for run in found)),
                *((key, *(str(run.settings[key]) for run in found)) for key in found[0].settings),
            ]
        )
