"""`spikedeblur check`: read a product back, every byte of it."""

from __future__ import annotations

import dataclasses
import json as json_format
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from .output import print_table

if TYPE_CHECKING:
    from ..pipeline.align.check.job import ManifestCheck, SequenceCheck
    from ..pipeline.voxelize.check import StoreCheck

_MAX_ROWS = 40
_MAX_FINDINGS = 50


def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A manifest that `align` wrote, or a store; each a path or a URL (s3://, gs://, "
            "az://).",
            show_default=False,
        ),
    ],
    manifest: Annotated[
        str | None,
        typer.Option(help="For a store: also compare its sources with this manifest."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="For a manifest: sequences at once; default: one a core, at most 8."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all that was found as JSON.")] = False,
) -> None:
    """Read everything once: is it what was aligned, or voxelized, and are both cameras sound?

    A manifest is checked for files missing, cut or changed; frames black, frozen or of another
    size; dead and hot pixels of the spikes; a gain or rate unlike the stated one; and exposures
    that leave the recording. A store is checked for flipped bits, and files and chunks missing or
    cut; `voxelize --check` makes those sequences anew. Exit code 1 if anything is wrong.

    Example: spikedeblur check outputs/logs/align_x4k1000fps.json
    """
    from .progress import progress_bar

    if path.lower().endswith(".json"):
        if manifest is not None:
            raise typer.BadParameter("--manifest is for stores, PATH is a manifest itself")
        from ..pipeline.voxelize.sources import check_manifest_at

        with progress_bar("Checking", "sequences") as reporter:
            found = check_manifest_at(path, workers=workers, reporter=reporter)
        content, wrong = dataclasses.asdict(found), bool(found.wrong)
        show: Callable[[], None] = partial(_print_manifest, found)
    else:
        from ..pipeline.voxelize.check import check_store

        with progress_bar("Checking") as reporter:
            store = check_store(path, manifest=manifest, reporter=reporter)
        content, wrong = store.as_dict(), not store.whole
        show = partial(_print_store, store)
    if json:
        typer.echo(json_format.dumps(content, indent=2))
    else:
        show()
    if wrong:
        raise typer.Exit(1)


def _print_store(found: StoreCheck) -> None:
    sources = f", {found.sources} source files" if found.sources else ""
    typer.echo(
        f"{found.store}: {found.sequences} sequences, {found.files} files, "
        f"{found.bytes / 1e6:.1f} MB{sources}: "
        + ("all as written" if found.whole else f"{len(found.findings)} findings")
    )
    if found.without_checksums:
        typer.echo(
            f"{found.without_checksums} sequences were written by a release without checksums: "
            "only sizes and indices were compared"
        )
    for finding in found.findings[:_MAX_FINDINGS]:
        typer.echo(f"{finding.problem}: {finding.message}")
    if len(found.findings) > _MAX_FINDINGS:
        typer.echo(f"and {len(found.findings) - _MAX_FINDINGS} more; --json lists all")


def _print_manifest(found: ManifestCheck) -> None:
    shown = sorted(found.sequences, key=lambda s: (not s.findings, not s.wrong))[:_MAX_ROWS]
    rows = [("sequence", "exposures", "MB", "rate (Hz)", "gain", "dead, hot", "found")]
    print_table(rows + [_row(sequence) for sequence in shown])
    if len(shown) < len(found.sequences):
        rest = len(found.sequences) - len(shown)
        typer.echo(f"and {rest} more; all are in the output of --json")
    for sequence in shown:
        for finding in sequence.findings:
            mark = "WRONG" if finding.wrong else "note"
            typer.echo(f"{mark} {sequence.seq}: {finding.message}")
    reasons = [s.rate_unknown for s in found.sequences if s.rate_unknown is not None]
    if reasons:
        why = "; ".join(sorted(set(reasons)))
        typer.echo(f"Rate not judged in {len(reasons)} sequences: {why}")
    dark = sum(s.pixels_judged < 0.5 for s in found.sequences)
    if dark:
        typer.echo(
            "Dead pixels don't show in the dark, which is over half the picture in "
            f"{dark} sequences"
        )
    verdict = f"wrong in {found.wrong} of" if found.wrong else "nothing wrong in"
    typer.echo(
        f"{found.path}: {verdict} {len(found.sequences)} sequences, {found.files} files, "
        f"{found.bytes / 1e6:.1f} MB read"
    )


def _row(sequence: SequenceCheck) -> tuple[str, ...]:
    rate = "-" if sequence.rate_measured is None else f"{sequence.rate_measured:.0f}"
    gain = "-" if sequence.gain_measured is None else f"{sequence.gain_measured:.3f}"
    stated = "-" if sequence.gain is None else f"{sequence.gain:g}"
    kinds = dict.fromkeys(finding.kind for finding in sequence.findings if finding.wrong)
    return (
        sequence.seq,
        str(sequence.windows),
        f"{sequence.bytes / 1e6:.1f}",
        f"{rate} of {sequence.rate:g}",
        f"{gain} of {stated}",
        f"{sequence.dead_pixels}, {sequence.hot_pixels}",
        ", ".join(kinds) or "-",
    )
