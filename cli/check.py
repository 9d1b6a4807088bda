"""`spikedeblur check`: read a product back, every byte of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..pipeline.host.reporter import counted
from .options import Json, workers_option
from .output import print_json, print_table, say

if TYPE_CHECKING:
    from ..pipeline.align.check.job import ManifestCheck, SequenceCheck
    from ..pipeline.voxelize.check import StoreCheck

_MAX_ROWS = 40
_MAX_FINDINGS = 50


ManifestOrStore = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A manifest that `align` wrote, or a store; each a path or a URL (s3://, gs://, "
        "az://).",
        show_default=False,
    ),
]
Manifest = Annotated[
    str | None,
    typer.Option(
        help="For a store: also compare its sources with this manifest.", metavar="FILE.json"
    ),
]
Workers = Annotated[
    int | None, workers_option("For a manifest: sequences at once.", "one a core, at most 8")
]


def check(
    path: ManifestOrStore,
    manifest: Manifest = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Read a manifest's data or a store once, and name what is damaged or doubtful.

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
            aligned = check_manifest_at(path, workers=workers, reporter=reporter)
        if json:
            print_json(aligned)
        else:
            _print_manifest(aligned)
        wrong = aligned.wrong > 0
    else:
        from ..pipeline.voxelize.check import check_store

        with progress_bar("Checking") as reporter:
            store = check_store(path, manifest=manifest, reporter=reporter)
        if json:
            print_json(store.as_dict())
        else:
            _print_store(store)
        wrong = not store.whole
    if wrong:
        raise typer.Exit(1)


def _print_store(store: StoreCheck) -> None:
    sources = f", {counted(store.sources, 'source file')}" if store.sources else ""
    say(
        f"{store.store}: {counted(store.sequences, 'sequence')}, {counted(store.files, 'file')}, "
        f"{store.bytes / 1e6:.1f} MB{sources}: "
        + ("all as written" if store.whole else f"{counted(len(store.findings), 'finding')}")
    )
    if store.without_checksums:
        say(
            f"{counted(store.without_checksums, 'sequence')} of a release without checksums: "
            "only sizes and indices were compared"
        )
    for finding in store.findings[:_MAX_FINDINGS]:
        say(f"{finding.problem}: {finding.message}")
    if len(store.findings) > _MAX_FINDINGS:
        say(f"and {len(store.findings) - _MAX_FINDINGS} more; --json lists all")


def _print_manifest(aligned: ManifestCheck) -> None:
    shown = sorted(aligned.sequences, key=lambda s: (not s.findings, not s.wrong))[:_MAX_ROWS]
    rows = [("sequence", "exposures", "MB", "lag (ms)", "rate (Hz)", "gain", "dead, hot", "found")]
    print_table(rows + [_row(sequence) for sequence in shown])
    if len(shown) < len(aligned.sequences):
        rest = len(aligned.sequences) - len(shown)
        say(f"and {rest} more; all are in the output of --json")
    for sequence in shown:
        for finding in sequence.findings:
            mark = "WRONG" if finding.wrong else "note"
            say(f"{mark} {sequence.seq}: {finding.message}")
    reasons = [s.rate_unknown for s in aligned.sequences if s.rate_unknown is not None]
    if reasons:
        why = "; ".join(sorted(set(reasons)))
        say(f"Rate not judged in {counted(len(reasons), 'sequence')}: {why}")
    dark = sum(s.pixels_judged < 0.5 for s in aligned.sequences)
    if dark:
        say(
            "Dead pixels don't show in the dark, which is over half the picture in "
            f"{counted(dark, 'sequence')}"
        )
    verdict = f"wrong in {aligned.wrong} of" if aligned.wrong else "nothing wrong in"
    say(
        f"{aligned.path}: {verdict} {counted(len(aligned.sequences), 'sequence')}, "
        f"{counted(aligned.files, 'file')}, {aligned.bytes / 1e6:.1f} MB read"
    )


def _row(sequence: SequenceCheck) -> tuple[str, ...]:
    rate = "-" if sequence.rate_measured is None else f"{sequence.rate_measured:.0f}"
    gain = "-" if sequence.gain_measured is None else f"{sequence.gain_measured:.3f}"
    stated = "-" if sequence.gain is None else f"{sequence.gain:g}"
    lag = "-" if sequence.lag is None else f"{1000 * sequence.lag:+.3f}"
    kinds = dict.fromkeys(finding.kind for finding in sequence.findings if finding.wrong)
    return (
        sequence.seq,
        str(sequence.windows),
        f"{sequence.bytes / 1e6:.1f}",
        f"{lag} corrected" if sequence.lag_applied else lag,
        f"{rate} of {sequence.rate:g}",
        f"{gain} of {stated}",
        f"{sequence.dead_pixels}, {sequence.hot_pixels}",
        ", ".join(kinds) or "-",
    )
