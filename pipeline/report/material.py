"""What a report is made from: run folders, and the store, evaluation and manifest beside them.

Only the run folder is needed. The page notes what else is missing, and which command makes it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...configs.schema.data import roots_of
from ...errors import SpikeDeblurError
from ..align.manifest import Manifest, ManifestError, read_manifest
from ..evaluate.scores import read_evaluation
from ..host.files import sha256_file
from ..host.reporter import counted
from ..sequences import open_store
from ..sequences.contract import WindowSequence
from ..sequences.lag import NOTABLE
from ..sequences.provenance import describe_data, warning_of
from ..sequences.stored import has_split
from ..storage.base import StoreError
from ..train.run.runs import RunRecord, read_run
from ..weights.find import weights_file
from .words import SHOW

_MOST_BESIDE = 100
"""Most files beside the logs that are looked at for the manifest."""


class ReportError(SpikeDeblurError):
    """A report can't be made from the given files, or not under the given name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(RunRecord):
    """A run folder's content."""

    name: str
    """The last parts of the folder's path, as many as tell the runs apart."""
    evaluation: dict[str, Any]
    """What `spikedeblur evaluate --json` wrote about the run; empty: it is not evaluated."""
    weights_sha256: str | None
    """SHA-256 of the best checkpoint; None: there is none."""
    samples: tuple[Path, ...]
    """Pictures of validation, the earliest first."""

    @property
    def has_model(self) -> bool:
        """Whether there is a checkpoint to restore by."""
        return self.weights_sha256 is not None

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl of one kind, train or val."""
        return [line for line in self.metrics if line["kind"] == kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportMaterial:
    """What the page shows."""

    runs: tuple[Run, ...]
    store: str | None
    split: str
    sequences: tuple[WindowSequence, ...]
    """The split's sequences; empty where the store is not there."""
    display: tuple[WindowSequence, ...]
    """The store's scenes for the eye; empty where it has none."""
    data_sha256: str | None
    """SHA-256 of these sequences, from `describe_data`; None: there are none."""
    manifest: Manifest | None
    notes: list[str] = field(default_factory=list)
    """What is missing, and which command makes it."""


def gather(
    runs: Several[Path],
    *,
    store: str | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> ReportMaterial:
    """Read the runs, and the store, evaluations and manifest that belong to them.

    Args:
        runs: run folders, each once.
        store: Zarr store to take pictures from; None: the one that the first run was evaluated
            on, or trained on, if it is in a folder.
        evaluation: evaluation of the first run; None: `evaluation.json` in its folder, as for the
            other runs.
        manifest: manifest of the training data; None: the one beside the first run's alignment
            log.

    Raises:
        RunFolderError: no run folder, or a damaged one.
        ReportError: a file that was named is not what it should be.
    """
    if len({path.resolve() for path in runs}) != len(runs):
        raise ReportError("expected each run once; leave out what is given twice")
    names = _names(runs)
    notes: list[str] = []
    read = tuple(
        _read_run(path, name, evaluation if i == 0 else None, notes)
        for i, (path, name) in enumerate(zip(runs, names, strict=True))
    )
    first = read[0]
    split = first.evaluation.get("split") or "test"
    store, sequences = _open(store, first, split, notes)
    return ReportMaterial(
        runs=read,
        store=store,
        split=split,
        sequences=sequences,
        display=_display(store, split) if sequences else (),
        data_sha256=describe_data(sequences)["sha256"] if sequences else None,
        manifest=_manifest(manifest, first, notes),
        notes=notes,
    )


def _read_run(
    path: Path, name: str, evaluation: str | os.PathLike[str] | None, notes: list[str]
) -> Run:
    record = read_run(path)
    if not record.metrics:
        notes.append(f"{name} has no metrics.jsonl yet: no curves")
    weights = weights_file(path)
    if not weights.is_file():
        notes.append(f"{name} has no checkpoint yet: nothing restored by its model")
    file = Path(evaluation or path / "evaluation.json")
    scores = _evaluation(file, required=evaluation is not None)
    if not scores:
        notes.append(
            f"{name} has no evaluation: `spikedeblur evaluate STORE --run {path} --json "
            f"{path / 'evaluation.json'}` makes one"
        )
    run = Run(
        **{part.name: getattr(record, part.name) for part in fields(record)},
        name=name,
        evaluation=scores,
        weights_sha256=sha256_file(weights) if weights.is_file() else None,
        samples=tuple(sorted((path / "samples").glob("step_*.png"))),
    )
    lags = scores.get("lag_in_exposures", {})
    late = sum(lag is not None and abs(lag) > NOTABLE for lag in lags.values())
    if late:
        notes.append(
            f"{name}: the spikes of {late} of {counted(len(lags), 'sequence')} are not "
            "where their sharp frames are; correct the alignment before you trust the figures"
        )
    if found := scores.get("findings"):
        notes.append(f"{name}: {warning_of(found)}")
    evaluated = scores.get("checkpoint_sha256")
    has_model = "model" in scores.get("methods", ())
    if has_model and (evaluated is None or evaluated != run.weights_sha256):
        notes.append(
            f"{name} was evaluated with other weights than its best checkpoint now; evaluate it "
            "again"
        )
    return run


def _evaluation(path: Path, *, required: bool) -> dict[str, Any]:
    """Return an evaluation; empty where none is required or there."""
    if os.path.lexists(path):
        return read_evaluation(path, ReportError)
    if required:
        raise ReportError(
            f"{path}: expected what `spikedeblur evaluate --json` writes, found no such file; "
            "give another --evaluation"
        )
    return {}


def _open(
    store: str | None, run: Run, split: str, notes: list[str]
) -> tuple[str | None, tuple[WindowSequence, ...]]:
    """Open the split in `store`; None: in the first folder recorded for the run that is there."""
    if store is not None:
        return store, tuple(open_store(store, split))
    recorded = [run.evaluation.get("store"), *roots_of(run.settings.get("DATA.ROOT"))]
    for place in dict.fromkeys(str(name) for name in recorded if name):
        if "://" in place:
            # The run may be a stranger's: nothing is asked of an address, nor signed, for him.
            notes.append(f"The store {place} is not asked: no pictures from it (give --store)")
            continue
        if not (Path(place) / "zarr.json").is_file():
            notes.append(f"The store {place} is not there: no pictures from it (give --store)")
            continue
        try:
            return place, tuple(open_store(place, split))
        except StoreError as error:
            notes.append(f"No pictures from the store: {error}")
    return None, ()


def _display(store: str | None, split: str) -> tuple[WindowSequence, ...]:
    """Return the scenes for the eye of a store that is open already."""
    if store is None or split == SHOW or not has_split(store, SHOW):
        return ()
    return tuple(open_store(store, SHOW))


def _manifest(path: str | os.PathLike[str] | None, run: Run, notes: list[str]) -> Manifest | None:
    if path is not None:
        return read_manifest(path)
    logs = run.settings.get("DATA.ALIGN_LOG_PATHS")
    recorded = [Path(str(log)) for log in (logs if isinstance(logs, list) else ())]
    beside = [file for folder in {log.parent for log in recorded} for file in folder.glob("*.json")]
    # Known by its content: the log of the configuration's name may describe other data by now.
    for file in [*(log.with_suffix(".json") for log in recorded), *sorted(beside)[:_MOST_BESIDE]]:
        if file.is_file() and sha256_file(file) in run.data.get("manifests_sha256", ()):
            try:
                return read_manifest(file)
            except ManifestError as error:
                notes.append(f"No alignment of the sources: {error}")
    notes.append(
        "The manifest of the training data is not where the configuration says "
        "(DATA.ALIGN_LOG_PATHS), or it is another by now: no alignment of the sources "
        "(give --manifest)"
    )
    return None


def _names(paths: Several[Path]) -> list[str]:
    """Return the last parts of each path, as many as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*of_path[-length:])) for of_path in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
