"""`spikedeblur split`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import command_line, print_table, report

if TYPE_CHECKING:
    from ..pipeline.align.split import SplitSummary

_MAX_WARNINGS = 20


class By(enum.StrEnum):
    """What is never divided."""

    scene = "scene"
    clip = "clip"
    folders = "folders"


def split(
    manifest: Annotated[Path, typer.Argument(help="The manifest that `align` wrote.")],
    val: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the exposures outside the test set.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(min=0, max=1, help="The same, to be added to the test set.")
    ] = 0.0,
    by: Annotated[
        By, typer.Option(help="What stays together; folders: undo, as the folders say.")
    ] = By.scene,
    seed: Annotated[int, typer.Option(help="Of the order in which scenes are dealt.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Manifest to write.", show_default="MANIFEST itself")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an --out that is no manifest.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Deal the sequences out to train and val by whole scenes; what is test stays test.

    Sequences keep their names: the split is written in the manifest, and voxelize and train
    follow it. Scenes in different splits that look alike are named.

    Example: spikedeblur split outputs/logs/align_x4k1000fps.json --val 0.1 --seed 0
    """
    from ..pipeline.align.split import split as job
    from .progress import progress_bar

    with progress_bar("Comparing scenes", "pictures") as on_progress:
        summary = job(
            manifest,
            val=val,
            test=test,
            by=by.value,
            seed=seed,
            out=out,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    _print_warnings(summary)
    if not json:
        rows = [("split", "scenes", "sequences", "exposures")]
        rows += [
            (name, str(part.scenes), str(part.sequences), str(part.windows))
            for name, part in summary.parts.items()
        ]
        print_table(rows)
    report(
        summary,
        f"{len(summary.moved)} sequences are in another split than their folders; manifest "
        f"{summary.manifest}",
        json=json,
        next_command=command_line("voxelize", summary.manifest, "store.zarr"),
    )


def _print_warnings(summary: SplitSummary) -> None:
    warnings = [
        f"scene {scene} is in the test set and elsewhere too, by the data set's own folders; its "
        "other sequences stay in train"
        for scene in summary.shared
    ]
    warnings += [
        f"{pair.first} and {pair.second} look alike ({pair.bits} of 256 bits differ) and are in "
        "different splits; if they are one scene, the figures will be too good"
        for pair in summary.similar
    ]
    for warning in warnings[:_MAX_WARNINGS]:
        typer.echo(f"warning: {warning}", err=True)
    if len(warnings) > _MAX_WARNINGS:
        rest = len(warnings) - _MAX_WARNINGS
        typer.echo(f"warning: and {rest} more; all are in the output of --json", err=True)
