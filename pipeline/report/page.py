"""The page itself: sources, pictures and charts put into the template, written as one file."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import SpikeDeblurError
from ..host.files import write_text
from ..host.locks import only_writer_of
from ..host.reporter import Progress
from . import charts, pictures, tables
from .material import ReportError, ReportMaterial, gather

MARK = '<meta name="generator" content="spikedeblur'
"""In the head of every report, so that one is replaced and no other page is."""

_HEAD_BYTES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSummary:
    """What was written."""

    out: str
    runs: int
    windows: int
    """Windows with pictures."""
    bytes: int
    notes: tuple[str, ...]
    """What is not on the page, and what makes it."""


def write_report(
    runs: Several[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    store: str | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
    restore: bool = True,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> ReportSummary:
    """Write one HTML file about runs, which needs nothing else to be looked at.

    Args:
        runs: run folders; several are compared.
        out: file to write; None: `report.html` in the run folder, of several in the folder above
            the first.
        store: as in `material.gather`.
        evaluation: as in `material.gather`.
        manifest: as in `material.gather`.
        restore: show pictures by the runs' models too, which have to be computed.
        overwrite: replace any file of that name.
        on_progress: told of each picture that a method has restored.

    Raises:
        ReportError: no run, something in the way, or a source that was named is none.
        SpikeDeblurError: the store or manifest that was named can't be read.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise ReportError("expected a run folder, got none")
    path = Path(out) if out is not None else _default_out(folders)
    require_own_page(path, overwrite=overwrite)
    sources = gather(
        folders,
        store=store,
        evaluation=None if evaluation is None else Path(evaluation),
        manifest=None if manifest is None else Path(manifest),
    )
    comparisons = pictures.compare(sources, on_progress, restore=restore)
    playback = None
    if sources.sequences:
        _, sequence, window = pictures.choose_windows(sources)[0]
        playback = pictures.play(sequence, window)
    page = render(sources, comparisons, playback)
    with only_writer_of(path):
        require_own_page(path, overwrite=overwrite)
        write_text(path, page)
    return ReportSummary(
        out=os.fspath(path),
        runs=len(folders),
        windows=len(comparisons),
        bytes=path.stat().st_size,
        notes=tuple(sources.notes),
    )


def require_own_page(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file that is no report, before any work is done.

    Raises:
        ReportError: there is one, and `overwrite` is not set; or another ending, or a folder.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"{path}: expected a name that ends in .html; change --out")
    if path.is_dir():
        raise ReportError(f"{path}: expected a file's name, found a folder; change --out")
    if not path.exists() or overwrite:
        return
    with path.open("rb") as file:
        if MARK.encode() not in file.read(_HEAD_BYTES):
            raise ReportError(
                f"{path}: there is a file that is not a report of ours; choose another --out, or "
                "give --overwrite"
            )


def render(
    sources: ReportMaterial,
    comparisons: Several[pictures.Comparison],
    playback: pictures.Playback | None,
) -> str:
    """Return the page. Equal inputs give equal text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    runs = sources.runs
    drawn: dict[str, charts.Spec | None] = {
        "validation": charts.validation_curve(runs),
        "gains": charts.gains(sources),
        "time": charts.time_spent(runs),
        "raster": None if playback is None else charts.raster(playback),
        "rates": None if playback is None else charts.rates(playback),
        "likeness": None if playback is None else charts.likeness(playback),
    }
    training = charts.training_curves(runs)
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        version=__version__,
        library=_vega(),
        title=", ".join(run.name for run in runs),
        sources=sources,
        several=len(runs) > 1,
        facts=[fact for run in runs for fact in _facts(run)] if len(runs) == 1 else [],
        results=tables.results(sources),
        measured=tables.measured(sources),
        motion=tables.motion(sources),
        by_run=tables.by_run(sources),
        comparisons=comparisons,
        playback=playback,
        training=list(training),
        charts={name: spec for name, spec in (drawn | training).items() if spec is not None},
        alignment=tables.alignment(sources),
        spent=[(run.name, tables.time_spent(run)) for run in runs],
        environment=tables.environment(runs),
        provenance=tables.provenance(sources),
        differences=tables.differences(runs),
    )


@functools.cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


def _facts(run: Any) -> list[tuple[str, str, str]]:
    try:
        return tables.facts(run)
    except SpikeDeblurError as error:  # a checkpoint of another release; the rest still shows
        return [("checkpoint", "unreadable", str(error))]


def _default_out(folders: Several[Path]) -> Path:
    home = folders[0] if len(folders) == 1 else folders[0].resolve().parent
    return home / "report.html"
