"""`spikedeblur runs`: trained runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json
from .output import print_json, print_table


def runs(
    folder: Annotated[
        Path, typer.Argument(help="Folder with run folders.", show_default="outputs")
    ] = Path("outputs"),
    json: Json = False,
) -> None:
    """Compare runs, the best first, with the keys by which they differ.

    Example: spikedeblur runs outputs
    """
    from ..pipeline.train.run.runs import list_runs

    best_first = list_runs(folder)
    if json:
        print_json(best_first)
        return
    rows: list[tuple[str, ...]] = [("run", "steps", "minutes", "dB", "over blur", "at step")]
    for run in best_first:
        scores = ("", "", "")
        if run.best_psnr is not None and run.psnr_blur is not None:
            over = run.best_psnr - run.psnr_blur
            scores = (f"{run.best_psnr:.2f}", f"{over:+.2f}", str(run.best_step))
        rows.append((run.run, str(run.step), f"{run.seconds / 60:.1f}", *scores))
    print_table(rows)
    if best_first[0].settings:
        rows = [("differ in", *(run.run for run in best_first))]
        for key in best_first[0].settings:
            rows.append((key, *(str(run.settings[key]) for run in best_first)))
        print_table(rows)
