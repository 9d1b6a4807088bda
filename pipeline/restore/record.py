"""The record beside restored frames: what they were made from, and whether all are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import SpikeDeblurError
from ...version import __version__
from ..host.documents import read_json
from ..host.files import StrPath, inside, write_text
from ..host.header import ProductFormat

RESTORATION = ProductFormat("spikedeblur.restore", 1)
RECORD = "restore.json"
"""Name of the record in its folder."""


MOST_FRAMES_PER_EXPOSURE = 1000
"""Most sharp frames of one exposure: cameras take at most a few hundred spike samples in it."""

MOST_HEADROOM = 16
"""Brightest light that PNGs of 16 bits may be asked to show; none brighter is told."""

Inputs = dict[str, Any]
"""What decides every pixel of the frames; frames of equal inputs are kept."""


class RestoreError(SpikeDeblurError):
    """A recording can't be restored as asked for."""


def restored_files(out: StrPath) -> list[Path]:
    """Return the paths of the sharp frames that `restore` wrote to a folder, in order of time.

    Raises:
        RestoreError: the folder holds no finished restoration.
    """
    folder, path = Path(out), Path(out) / RECORD
    record = _read_record(path)
    if record is None or not record.get("complete"):
        raise RestoreError(
            f"{out}: expected a folder that `restore` finished, found "
            f"{'no' if record is None else 'an unfinished'} {RECORD}; restore again"
        )
    return [inside(folder, f"{stem}.png", path) for stem in frame_stems(record["inputs"])]


def prepare_out(out: Path, inputs: Inputs, sources: Mapping[str, Any], overwrite: bool) -> None:
    """Leave in `out` only frames of these inputs, and their record.

    Raises:
        RestoreError: frames or a record of others are there, and `overwrite` is not set.
    """
    path = out / RECORD
    record = _read_record(path)
    frames = [stem for stem in frame_stems(inputs) if (out / f"{stem}.png").exists()]
    if not overwrite and record is not None:
        if record["version"] == __version__ and record["inputs"] == inputs:
            return
        raise RestoreError(
            f"{path}: the frames here are from {_difference(record, inputs)}; choose another "
            "--out, or give --overwrite"
        )
    if not overwrite and (frames or path.exists()):
        raise RestoreError(
            f"{out / f'{frames[0]}.png' if frames else path}: expected what `restore` wrote, found "
            "another file; choose another --out, or give --overwrite"
        )
    # Frames go before the record changes: a run killed in between must not take them for its own.
    former = frame_stems(record["inputs"]) if record is not None else []
    for stem in {*frames, *former}:
        inside(out, f"{stem}.png", path).unlink(missing_ok=True)
    write_record(out, inputs, sources, complete=False)


def tile_before(out: Path) -> int | None:
    """Return the tile of the frames in `out`, 0 for whole frames; None: no model's frames."""
    record = _read_record(out / RECORD)
    if record is None or record["inputs"].get("method") != "model":
        return None
    return record["inputs"].get("tile") or 0


def white_of(headroom: int) -> int:
    """Return the code of white in PNGs of 16 bits that show light up to `headroom`."""
    return int(65535 / headroom + 0.5)


def frame_stems(inputs: Inputs) -> list[str]:
    """Return the names of the sharp frames without ending, in order of time."""
    each = inputs.get("frames_per_exposure", 1)
    if each == 1:
        return list(inputs["frames"])
    return [f"{stem}_{m}" for stem in inputs["frames"] for m in range(each)]


def _difference(record: dict[str, Any], inputs: Inputs) -> str:
    if record["version"] != __version__:
        return f"spikedeblur {record['version']}"
    before = record["inputs"]
    keys = [key for key in {**inputs, **before} if before.get(key) != inputs.get(key)]
    return f"other inputs ({', '.join(keys)})"


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the record that `restore` wrote, or None where there is none."""
    try:
        record = read_json(path)
    except (OSError, ValueError):
        return None
    if (
        RESTORATION.heads(record)
        and record.get("schema_version") == RESTORATION.schema_version
        and isinstance(record.get("version"), str)
        and isinstance(record.get("inputs"), dict)
        and isinstance(record["inputs"].get("frames"), dict)
        and _is_count(record["inputs"].get("frames_per_exposure", 1))
        and isinstance(record["inputs"].get("tile"), int | None)
    ):
        return dict(record)
    return None


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_FRAMES_PER_EXPOSURE


def write_record(out: Path, inputs: Inputs, sources: Mapping[str, Any], *, complete: bool) -> None:
    """Write the record beside the frames, before the first and after the last of them."""
    record = {
        **RESTORATION.header(),
        "complete": complete,
        "sources": dict(sources),
        "inputs": inputs,
    }
    write_text(out / RECORD, json.dumps(record, indent=2) + "\n")
