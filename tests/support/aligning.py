"""`align` as tests call it: every option by its own name, and a listener."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from spikedeblur.pipeline.align import AlignOptions, Manifest, align
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.spikes.settings import SpikeOptions

SPIKES = {field.name for field in fields(SpikeOptions)}


class Listener(Reporter):
    """Keeps notes and warnings."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def run_align(
    root: Path, layout: str, log: Path, *, workers: int | None = None, **options: Any
) -> tuple[Manifest, list[str]]:
    """Align with a manifest beside the log; returns it and the warnings.

    Options are those of `AlignOptions` and `SpikeOptions`, and `overwrite`.
    """
    listener = Listener()
    overwrite = options.pop("overwrite", False)
    spikes = {name: options.pop(name) for name in SPIKES & options.keys()}
    manifest = align(
        root,
        layout,
        log=log,
        manifest=log.with_suffix(".json"),
        options=AlignOptions(spikes=SpikeOptions(**spikes), **options),
        overwrite=overwrite,
        workers=workers,
        reporter=listener,
    )
    return manifest, listener.warnings
