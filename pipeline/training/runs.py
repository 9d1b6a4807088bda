"""Runs side by side: how far each is, how good, and by which keys they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...configs.yaml_text import YamlError, read_yaml
from ...errors import SpikeDeblurError

_NOT_COMPARED = ("TRAIN.LOG_INTERVAL", "TRAIN.SAVE_INTERVAL", "TRAIN.NUM_WORKERS")


class RunsError(SpikeDeblurError):
    """There are no runs to show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """One run."""

    run: str
    """Its folder, as it was found."""
    step: int
    """The last that is recorded."""
    best_psnr: float | None
    """On the validation split, in dB."""
    best_step: int | None
    psnr_blur: float | None
    """Of the blurred input there."""
    seconds: float
    """That its steps took."""
    settings: dict[str, Any]
    """Keys that are not the same in all runs shown."""


def list_runs(folder: Path) -> list[RunFacts]:
    """Return the runs in a folder and below, the best first.

    Raises:
        RunsError: none there; or a file of one can't be read.
    """
    found = sorted(path.parent for path in folder.rglob("config.yaml"))
    runs = [run for run in found if (run / "metrics.jsonl").is_file()]
    if not runs:
        raise RunsError(
            f"{folder}: expected run folders that `spikedeblur train` wrote, found none"
        )
    settings = [_settings(run / "config.yaml") for run in runs]
    differ = differing(settings)
    facts = [
        _facts(run, {name: of_run.get(name) for name in differ})
        for run, of_run in zip(runs, settings, strict=True)
    ]
    return sorted(facts, key=lambda run: -(run.best_psnr or 0.0))


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all configurations (keys with dots)."""
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    return [
        name
        for name in names
        if name not in _NOT_COMPARED
        and len({json.dumps(of_run.get(name)) for of_run in settings}) > 1
    ]


def _facts(run: Path, settings: dict[str, Any]) -> RunFacts:
    lines = _metrics(run / "metrics.jsonl")
    validations = [line for line in lines if line["kind"] == "val"]
    best = max(validations, key=lambda line: float(line["psnr"]), default=None)
    return RunFacts(
        run=str(run),
        step=max((int(line["step"]) for line in lines), default=0),
        best_psnr=None if best is None else float(best["psnr"]),
        best_step=None if best is None else int(best["step"]),
        psnr_blur=None if best is None else float(best["psnr_blur"]),
        seconds=sum(float(line["seconds"]) for line in lines if line["kind"] == "train"),
        settings=settings,
    )


def _metrics(path: Path) -> list[dict[str, Any]]:
    lines = []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")  # the last may be in writing
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = json.loads(text)
            line["kind"], line["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunsError(
                f"{path}, line {number}: expected what `train` writes, found {text[:40]!r}; move "
                "the run away"
            ) from error
        lines.append(line)
    return lines


def _settings(path: Path) -> dict[str, Any]:
    """Return a configuration's keys with dots."""
    try:
        return leaves(read_yaml(path.read_text(encoding="utf-8")))
    except (YamlError, UnicodeDecodeError) as error:
        raise RunsError(f"{path}: not YAML ({error}); move the run away") from error


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree of dictionaries by their names, joined by dots."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in leaves(below, f"{prefix}.{name}" if prefix else name).items()
    }
