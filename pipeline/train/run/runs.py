"""Content of run folders, read in one place; and runs side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ....errors import SpikeDeblurError
from ...host.documents import (
    MAX_CHARACTERS,
    MAX_JSON_BYTES,
    DocumentError,
    parse_json,
    parse_yaml,
    read_json,
)
from ...host.reading import read_file
from ...host.reporter import counted
from ...weights.same import leaves

_NOT_COMPARED = ("TRAIN.LOG_INTERVAL", "TRAIN.SAVE_INTERVAL", "TRAIN.NUM_WORKERS")


class _Data(BaseModel):
    """What is read of `describe_data` in environment.json."""

    sequences: int
    windows: int
    sha256: str
    manifests_sha256: list[str]


class _Init(BaseModel):
    """What is read of the weights that a run began with."""

    name: str
    sha256: str


class _Environment(BaseModel):
    starts: list[dict[str, str | int | float | None]]
    data: _Data
    init: _Init | None = None


class _Line(BaseModel):
    """What is read of a line of metrics.jsonl, of any kind."""

    kind: str
    step: int = Field(ge=0)
    psnr: float | None = None
    psnr_blur: float | None = None
    seconds: float = 0.0
    loss: float | None = None
    lr: float | None = None
    grad_norm: float | None = None
    samples_per_s: float | None = None
    tflops: float | None = None
    peak_share: float | None = None
    data_wait: float | None = None
    peak_memory: float | None = None


class RunFolderError(SpikeDeblurError):
    """A run folder can't be used as asked; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """Content of a run folder, weights apart."""

    folder: Path
    config_text: str
    """Resolved configuration, YAML."""
    settings: dict[str, Any]
    """Values of the configuration by their keys with dots."""
    starts: tuple[dict[str, Any], ...]
    """Software and device of each start of the run; empty before the first step."""
    data: dict[str, Any]
    """Content of the training split, from `describe_data`."""
    metrics: tuple[dict[str, Any], ...]
    """Objects of metrics.jsonl, from `read_metrics`."""
    began_with: str | None = None
    """Weights of `train --init`: name, and the beginning of their SHA-256; None: none."""


def read_run(folder: Path) -> RunRecord:
    """Read a run folder; the run may still go on, or have been killed.

    Raises:
        RunFolderError: no run folder, or a file in it is damaged; names it.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise RunFolderError(
            f"{folder}: expected a run folder that `spikedeblur train` wrote, found no config.yaml "
            "in it; check the path"
        )
    try:
        text = read_file(path, MAX_CHARACTERS).decode("utf-8")
        settings = leaves(parse_yaml(text))
    except (OSError, UnicodeDecodeError, DocumentError) as error:
        raise RunFolderError(
            f"{path}: expected YAML, found something else ({error}); restore the file"
        ) from error
    starts: tuple[dict[str, Any], ...] = ()
    data: dict[str, Any] = {}
    began_with = None
    path = folder / "environment.json"
    if path.exists():
        try:
            environment = read_json(path)
            init = _Environment.model_validate(environment).init
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{path}: expected what `train` writes, found something else; remove the file"
            ) from error
        starts, data = tuple(environment["starts"]), environment["data"]
        began_with = None if init is None else f"{init.name} ({init.sha256[:12]})"
    return RunRecord(
        folder=folder,
        config_text=text,
        settings=settings,
        starts=starts,
        data=data,
        metrics=tuple(read_metrics(folder)),
        began_with=began_with,
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the objects of metrics.jsonl, each with kind and step; none where it isn't there.

    A last line without its end is left out: it is being written, or was when the run was killed.

    Raises:
        RunFolderError: another line is no such object; names it.
    """
    path = run / "metrics.jsonl"
    if not os.path.lexists(path):
        return []
    try:
        whole, _, _ = read_file(path, MAX_JSON_BYTES).rpartition(b"\n")
    except OSError as error:
        raise RunFolderError(f"{path}: can't be read ({error.strerror}); restore it") from error
    lines = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = parse_json(text)
            _Line.model_validate(line)
        except ValueError as error:
            raise RunFolderError(
                f"{path}, line {number}: expected what `train` writes, found {text[:40]!r}; "
                "remove the line"
            ) from error
        lines.append(line)
    return lines


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """Length and quality of one run, and how its configuration differs from others."""

    run: str
    """Run folder."""
    step: int
    """Last step that is recorded."""
    best_psnr: float | None
    """Best PSNR on the validation split, in dB."""
    best_step: int | None
    psnr_blur: float | None
    """PSNR of the blurred input at that step, in dB."""
    seconds: float
    """Time of the training steps."""
    settings: dict[str, Any]
    """Values of the keys that are not the same in all runs shown; `training data` and `began with`
    beside them."""


def list_runs(*folders: Path) -> list[RunFacts]:
    """Return the runs in folders and below, the best first; a folder may be a run itself.

    Raises:
        RunFolderError: none in one of the folders; or a file of a run can't be read.
    """
    runs: dict[Path, Path] = {}
    for folder in folders:
        inside = sorted(path.parent for path in folder.rglob("config.yaml"))
        trained = [run for run in inside if (run / "metrics.jsonl").is_file()]
        if not trained:
            raise RunFolderError(
                f"{folder}: expected run folders that `spikedeblur train` wrote, found none; "
                "check the path"
            )
        runs |= {run.resolve(): run for run in trained if run.resolve() not in runs}
    records = [read_run(run) for run in runs.values()]
    settings = [record.settings | _origin(record) for record in records]
    differ = differing(settings)
    facts = [
        summarise(record, {name: of_run.get(name) for name in differ})
        for record, of_run in zip(records, settings, strict=True)
    ]
    return sorted(facts, key=lambda run: -(run.best_psnr or 0.0))


def _origin(record: RunRecord) -> dict[str, Any]:
    """Return what a run was trained on and began with, by names that are no keys."""
    data = None
    if record.data:
        sequences, windows = record.data["sequences"], record.data["windows"]
        data = f"{counted(windows, 'window')} in {counted(sequences, 'sequence')}, "
        data += record.data["sha256"][:8]
    return {"training data": data, "began with": record.began_with}


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all configurations (keys with dots)."""
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    return [
        name
        for name in names
        if name not in _NOT_COMPARED
        and len({json.dumps(of_run.get(name)) for of_run in settings}) > 1
    ]


def summarise(record: RunRecord, settings: dict[str, Any] | None = None) -> RunFacts:
    """Return the length and quality of a run, with the settings by which it differs."""
    lines = record.metrics
    # The PSNR of a validation whose result was no number is None.
    validations = [x for x in lines if x["kind"] == "val" and x.get("psnr") is not None]
    best = max(validations, key=lambda line: float(line["psnr"]), default={})
    return RunFacts(
        run=str(record.folder),
        step=max((int(line["step"]) for line in lines), default=0),
        best_psnr=best.get("psnr"),
        best_step=best.get("step"),
        psnr_blur=best.get("psnr_blur"),
        seconds=sum(float(x.get("seconds", 0)) for x in lines if x["kind"] == "train"),
        settings=settings or {},
    )
