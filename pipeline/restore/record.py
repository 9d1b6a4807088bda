"""The record beside restored frames: what they were made from, and whether all are there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import SpikeDeblurError
from ..host.files import inside, write_text

FORMAT = "spikedeblur.restore"
SCHEMA_VERSION = 1
RECORD = "restore.json"


class RestoreError(SpikeDeblurError):
    """A recording can't be restored as asked for."""


def restored_files(out: str | os.PathLike[str]) -> list[Path]:
    """Return the sharp frames that `restore` wrote to a folder, in order of time.

    Raises:
        RestoreError: it holds no finished restoration.
    """
    record = _read_record(Path(out) / RECORD)
    if record is None or not record.get("complete"):
        raise RestoreError(f"{out}: expected a folder that `restore` finished, with {RECORD}")
    return [
        inside(Path(out), f"{stem}.png", Path(out) / RECORD)
        for stem in frame_stems(record["inputs"])
    ]


def prepare_out(
    out: Path, inputs: dict[str, Any], sources: Mapping[str, Any], overwrite: bool
) -> None:
    """Leave in `out` only frames of these inputs, and their record.

    Raises:
        RestoreError: frames or a record of others are there, and `overwrite` is not set.
    """
    path = out / RECORD
    record = _read_record(path)
    there = [stem for stem in frame_stems(inputs) if (out / f"{stem}.png").exists()]
    if not overwrite:
        if record is not None and record["version"] == __version__ and record["inputs"] == inputs:
            return
        if record is not None:
            raise RestoreError(
                f"{path}: the frames here are from {_difference(record, inputs)}; choose another "
                "--out, or give --overwrite"
            )
        if there or path.exists():
            raise RestoreError(
                f"{out / (there[0] + '.png') if there else path}: is there and not ours; choose "
                "another --out, or give --overwrite"
            )
    # Frames go before the record changes: a run killed in between must not take them for its own.
    former = frame_stems(record["inputs"]) if record is not None else []
    for stem in {*there, *former}:
        inside(out, f"{stem}.png", path).unlink(missing_ok=True)
    write_record(out, inputs, sources, complete=False)


def tile_before(out: Path) -> int | None:
    """Return the tile that frames in `out` were made with, so that the rest are made alike."""
    record = _read_record(out / RECORD)
    if record is None or record["inputs"].get("method") != "model":
        return None
    return record["inputs"].get("tile") or 0


def frame_stems(inputs: dict[str, Any]) -> list[str]:
    """Return the names of the sharp frames without ending, in order of time."""
    each = inputs.get("frames_per_exposure", 1)
    if each == 1:
        return list(inputs["frames"])
    return [f"{stem}_{m}" for stem in inputs["frames"] for m in range(each)]


def _difference(record: dict[str, Any], inputs: dict[str, Any]) -> str:
    if record["version"] != __version__:
        return f"spikedeblur {record['version']}"
    before = record["inputs"]
    keys = [key for key in {**inputs, **before} if before.get(key) != inputs.get(key)]
    return f"other inputs ({', '.join(keys)})"


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return our own record, or None."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if (
        isinstance(record, dict)
        and record.get("format") == FORMAT
        and record.get("schema_version") == SCHEMA_VERSION
        and isinstance(record.get("version"), str)
        and isinstance(record.get("inputs"), dict)
        and isinstance(record["inputs"].get("frames"), dict)
        and isinstance(record["inputs"].get("frames_per_exposure", 1), int)
    ):
        return record
    return None


def write_record(
    out: Path, inputs: dict[str, Any], sources: Mapping[str, Any], *, complete: bool
) -> None:
    """Write the record beside the frames, before the first and after the last of them."""
    record = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "complete": complete,
        "sources": dict(sources),
        "inputs": inputs,
    }
    write_text(out / RECORD, json.dumps(record, indent=2) + "\n")
