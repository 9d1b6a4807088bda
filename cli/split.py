"""`spikedeblur split`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..pipeline.host.reporter import counted
from .help_page import OUTPUT
from .options import Json, overwrites, seed_option
from .output import command_line, print_table, report, require_writable, store_beside

Val = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Share of the exposures outside the test set.", metavar="SHARE"
    ),
]
Test = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of them to add to the test set.", metavar="SHARE"),
]
By = Annotated[
    Literal["scene", "clip", "folders"],
    typer.Option(help="What stays together; folders: undo a split."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Manifest to write.",
        show_default="MANIFEST itself",
        metavar="FILE.json",
        rich_help_panel=OUTPUT,
    ),
]


def split(
    manifest: Annotated[Path, typer.Argument(help="The manifest that `align` wrote.")],
    val: Val = 0.1,
    test: Test = 0.0,
    by: By = "scene",
    seed: Annotated[int, seed_option("the order in which scenes are drawn")] = 0,
    out: Out = None,
    overwrite: Annotated[bool, overwrites("an --out that is no manifest")] = False,
    json: Json = False,
) -> None:
    """Deal the sequences out to train and val by whole scenes.

    The test set stays as it is, unless --test adds to it. Sequences keep their names: the split is
    written in the manifest, and voxelize and train follow it. Scenes in different splits that look
    alike are named.

    Example: spikedeblur split outputs/logs/align_x4k1000fps.json --val 0.1 --seed 0
    """
    from ..pipeline.align.manifest import read_manifest
    from ..pipeline.align.split import split as job
    from .progress import progress_bar

    require_writable(out)
    with progress_bar("Comparing scenes", "pictures") as reporter:
        summary = job(
            manifest,
            val=val,
            test=test,
            by=by,
            seed=seed,
            out=out,
            overwrite=overwrite,
            reporter=reporter,
        )
    root = Path(os.path.relpath(read_manifest(summary.manifest).root_folder(summary.manifest)))
    if not json:
        rows = [("split", "scenes", "sequences", "exposures")]
        rows += [
            (name, str(part.scenes), str(part.sequences), str(part.windows))
            for name, part in summary.parts.items()
        ]
        print_table(rows)
    report(
        summary,
        f"In another split than by folders: {counted(len(summary.moved), 'sequence')}; manifest "
        f"{summary.manifest}",
        json=json,
        next_command=command_line("voxelize", summary.manifest, store_beside(root)),
    )
