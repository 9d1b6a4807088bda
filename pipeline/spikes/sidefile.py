"""Side files: the geometry, clock, gain and origin of a `.dat`, written beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import SpikeDeblurError
from ..host.files import write_text
from ..host.reading import read_file
from ..host.validation import first_problem
from .bounds import Gain, Hertz, Instant
from .geometry import SpikeGeometry
from .parts import stream_files
from .presets import GeometrySpec, parse_geometry

FOLDER_SIDE_FILE = "spikes.json"
"""Name of one side file for all `.dat` files of a folder."""

_MAX_BYTES = 1 << 20
"""Most bytes that are read of a side file, which has a few hundred."""


class SideFileError(SpikeDeblurError):
    """A side file exists, but it can't be used."""


class SideFile(BaseModel):
    """The content of `<name>.dat.json`, or of `spikes.json` for a whole folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["spikedeblur.spikes"] = "spikedeblur.spikes"
    schema_version: Literal[1] = 1
    geometry: GeometrySpec
    """A geometry SPEC, such as `250x400,bottom-up`."""
    rate: Hertz | None = None
    """Spike samples a second, in Hz."""
    first: Instant = 0.0
    """Time of the first spike sample, in seconds. Not used in a folder's side file."""
    gain: Gain | None = None
    """Spikes a sample at unit luminance."""
    sensor: str | None = None
    """Path of the sensor's file that `calibrate` wrote, from the side file's folder."""
    made_by: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Tool, version, seed and camera settings; no sample's value depends on them."""

    def spike_geometry(self) -> SpikeGeometry:
        """Return the geometry that `geometry` spells."""
        return parse_geometry(self.geometry)


def side_file_path(dat_path: str | os.PathLike[str]) -> Path:
    """Return where the side file of one `.dat` lies."""
    return Path(f"{os.fspath(dat_path)}.json")


def read_side_file(dat_path: str | os.PathLike[str]) -> SideFile | None:
    """Return what is recorded for a stream, or None where nothing is.

    Looks for `<name>.dat.json`, then for `spikes.json` in the same folder. Of a stream in parts,
    the first part's is returned.

    Raises:
        SideFileError: a side file exists, but it is not what this version writes; or parts of one
            stream have side files that disagree on geometry, rate or gain.
        SpikeFileError: a folder or pattern without spike files.
    """
    first, *others = (Path(part) for part in stream_files(dat_path))
    side = _read_beside(first)
    for other in others:
        further = _read_beside(other)
        if _essence(further) != _essence(side):
            raise SideFileError(
                f"{other}: its side file disagrees with that of {first.name} on geometry, rate, "
                "gain or sensor; correct one, or name a single file"
            )
    return side


def has_own_side_file(dat_path: str | os.PathLike[str]) -> bool:
    """Whether a stream, or its first part, has a side file that is not its folder's."""
    return side_file_path(stream_files(dat_path)[0]).is_file()


def beside(dat_path: str | os.PathLike[str], relative: str) -> Path:
    """Return a path that a stream's side file names."""
    return Path(os.path.normpath(stream_files(dat_path)[0].parent / relative))


def names_sensor(dat_path: str | os.PathLike[str], sensor: Path) -> Path | None:
    """Return the side file of a stream that names a sensor's file; None: it doesn't."""
    first = Path(stream_files(dat_path)[0])
    for path in (side_file_path(first), first.parent / FOLDER_SIDE_FILE):
        if path.is_file():
            named = _parse(path).sensor
            return path if named is not None and beside(dat_path, named) == sensor else None
    return None


def _essence(side: SideFile | None) -> tuple[object, ...]:
    return () if side is None else (side.geometry, side.rate, side.gain, side.sensor)


def _read_beside(dat_path: Path) -> SideFile | None:
    for path in (side_file_path(dat_path), dat_path.parent / FOLDER_SIDE_FILE):
        if path.is_file():
            return _parse(path)
    return None


def write_side_file(dat_path: str | os.PathLike[str], side: SideFile) -> None:
    """Write the side file of one `.dat`, atomically."""
    write_text(side_file_path(dat_path), format_side_file(side))


def write_folder_side_file(folder: str | os.PathLike[str], side: SideFile) -> None:
    """Write one side file for all `.dat` files of a folder, atomically."""
    write_text(Path(folder) / FOLDER_SIDE_FILE, format_side_file(side))


def format_side_file(side: SideFile) -> str:
    """Return a side file's content, JSON."""
    content = side.model_dump()
    if side.sensor is None:  # former releases don't know it
        del content["sensor"]
    return json.dumps(content, indent=2) + "\n"


def _parse(path: Path) -> SideFile:
    try:
        return SideFile.model_validate_json(read_file(path, _MAX_BYTES))
    except OSError as error:
        raise SideFileError(
            f"{path}: can't read the side file ({error.strerror}); restore it or remove it"
        ) from error
    except ValidationError as error:
        raise SideFileError(
            f"{path}: expected a spikedeblur side file, but {first_problem(error)}; correct it "
            "or write it anew with `spikedeblur convert`"
        ) from error
