"""`spikedeblur runs`: trained runs side by side."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .options import Json
from .output import is_quiet, print_json, print_table, say

Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RUN | FOLDER]...",
        help="Run folders, or folders with some.",
        show_default="outputs",
    ),
]


def runs(
    folders: Folders = None,
    json: Json = False,
) -> None:
    """Compare runs, the best first, with the keys by which they differ.

    Example: spikedeblur runs outputs

    Two of them: spikedeblur runs outputs/a outputs/b
    """
    from ..pipeline.train.run.runs import list_runs

    folders = folders or [Path("outputs")]
    best_first = list_runs(*folders)
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
    elif len(best_first) > 1:
        say("Same configuration and training data.")
    if not is_quiet.get():
        roots = best_first if len(folders) > 1 else []
        logs = ",".join(f"{Path(run.run).name}:{run.run}" for run in roots)
        where = ("--logdir_spec", logs) if logs else ("--logdir", str(folders[0]))
        say(f"Curves: {shlex.join(('tensorboard', *where))}")
