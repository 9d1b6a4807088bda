"""The report's page: tables, pictures and charts in one HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path

from ...version import __version__
from ..host.files import write_text
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..host.reading import read_start
from ..host.reporter import SILENT, Parts, Reporter
from . import pictures
from .material import ReportError, ReportMaterial, gather
from .words import EXPLAINED

MARK = '<meta name="generator" content="spikedeblur'
"""Text in the head of every report, by which another page is not replaced."""

_HEAD_BYTES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSummary:
    """What `write_report` has written."""

    out: str
    runs: int
    windows: int
    """Number of windows with pictures."""
    bytes: int
    notes: tuple[str, ...]
    """What is not on the page, and which command makes it."""


def write_report(
    runs: Several[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    store: str | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    restore: bool = True,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ReportSummary:
    """Write one HTML file about runs, which needs nothing else to be looked at.

    Args:
        runs: run folders; several are compared.
        out: file to write; None: `report.html` in the only run folder, or in the folder above
            the first of several.
        store: as in `material.gather`.
        evaluation: as in `material.gather`.
        manifest: as in `material.gather`.
        restore: show pictures by the runs' models too, which have to be computed.
        overwrite: replace any file of that name.
        reporter: hears of each picture and of the page, and the time left.

    Raises:
        ReportError: no run, another ending than .html, or a source that was named is none.
        OverwriteError: another file is there.
        SpikeDeblurError: the store or manifest that was named can't be read.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise ReportError("expected a run folder, got none")
    home = folders[0] if len(folders) == 1 else folders[0].resolve().parent
    path = home / "report.html" if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"{path}: expected a name that ends in .html; change --out")
    require_free(path, overwrite=overwrite, is_ours=_is_report, what="a report")
    material = gather(folders, store=store, evaluation=evaluation, manifest=manifest)
    methods = pictures.choose_methods(material, restore)
    chosen = pictures.choose_windows(material) if material.sequences else []
    work = Parts(reporter, len(chosen) * len(methods) + bool(chosen) + 1, pictures.GUESSES)
    comparisons = pictures.compare(material, methods, chosen, work)
    playback = None
    if chosen:
        _, sequence, window = chosen[0]
        playback = pictures.play(sequence, window)
        work.did("playback", "the playback", finished=1)
    page = render(material, comparisons, playback)
    work.did("page", "the page", finished=1)
    with only_writer_of(path):
        require_free(path, overwrite=overwrite, is_ours=_is_report, what="a report")
        write_text(path, page)
    return ReportSummary(
        out=os.fspath(path),
        runs=len(folders),
        windows=len(comparisons),
        bytes=path.stat().st_size,
        notes=tuple(material.notes),
    )


def _is_report(path: Path) -> bool:
    return MARK.encode() in read_start(path, _HEAD_BYTES)


def render(
    material: ReportMaterial,
    comparisons: Several[pictures.Comparison],
    playback: pictures.Playback | None,
) -> str:
    """Return the page. Equal inputs give equal text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from . import charts, tables  # with Altair, which no wrong path should wait for

    runs = material.runs
    drawn: dict[str, charts.Spec | None] = {
        "validation": charts.validation_curve(runs),
        "improvements": charts.improvements(material),
        "time": charts.time_spent(runs),
    }
    if playback is not None:
        drawn["raster"] = charts.raster(playback)
        drawn["rates"] = charts.rates(playback)
        drawn["likeness"] = charts.likeness(playback)
    training = charts.training_curves(runs)
    results = tables.results(material)
    explained = {n: w for n, w in EXPLAINED.items() if results is None or n in results.headings}
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        version=__version__,
        library=(Path(__file__).parent / "templates/vega.js").read_text(encoding="utf-8"),
        title=", ".join(run.name for run in runs),
        material=material,
        several=len(runs) > 1,
        facts=list(tables.facts(runs[0])) if len(runs) == 1 else [],
        results=results,
        measured=tables.measured(material),
        motion=tables.motion(material),
        by_run=tables.by_run(material),
        comparisons=comparisons,
        validated=pictures.validated(material),
        explained=explained,
        all_explained=EXPLAINED,
        playback=playback,
        training=list(training),
        charts={name: spec for name, spec in (drawn | training).items() if spec is not None},
        alignment=tables.alignment(material),
        spent=[(run.name, tables.time_spent(run)) for run in runs],
        environment=tables.environment(runs),
        provenance=list(tables.provenance(material)),
        differences=tables.differences(runs),
        parts=[tables.parts(run) for run in runs],
    )
