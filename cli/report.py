"""`spikedeblur report`: one HTML file about a run, or about several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..pipeline.host.reporter import counted
from . import output
from .help_page import OUTPUT
from .options import Json, overwrites

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run folder; several are compared.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="HTML file to write.",
        show_default="report.html in the run, or above several",
        metavar="FILE.html",
        rich_help_panel=OUTPUT,
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="Store to take pictures from.",
        show_default="the folder evaluated, or trained on",
        metavar="STORE",
    ),
]
EvaluationFile = Annotated[
    Path | None,
    typer.Option(
        help="The first run's evaluation, by evaluate --json.",
        show_default="evaluation.json in the run",
        metavar="FILE.json",
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        help="Manifest of the training data.",
        show_default="beside the recorded log",
        metavar="FILE.json",
    ),
]
Restore = Annotated[
    bool,
    typer.Option(help="Restore the pictures by the runs' models; slow on a CPU if they are large."),
]


def report(
    runs: Runs,
    out: Out = None,
    store: Store = None,
    evaluation: EvaluationFile = None,
    manifest: Manifest = None,
    restore: Restore = True,
    overwrite: Annotated[bool, overwrites("a file that report didn't write")] = False,
    json: Json = False,
) -> None:
    """Write one HTML file that shows what a run, or several, are worth.

    It has figures, pictures, curves and their origin. The file needs no network and no other file.
    The page says what a run does not have.

    Example: spikedeblur report outputs/quickstart
    """
    from ..pipeline.report import write_report
    from .progress import progress_bar

    output.require_writable(out)
    with progress_bar("Reporting", "parts") as reporter:
        summary = write_report(
            runs,
            out,
            store=store,
            evaluation=evaluation,
            manifest=manifest,
            restore=restore,
            overwrite=overwrite,
            reporter=reporter,
        )
    if not json:
        for missing in summary.notes:
            output.note(f"note: {missing}")
    output.report(
        summary,
        f"{summary.out}: {counted(summary.runs, 'run')}, "
        f"{counted(summary.windows, 'window')} with pictures, "
        f"{summary.bytes / 1e6:.1f} MB; open it in a browser",
        json=json,
    )
