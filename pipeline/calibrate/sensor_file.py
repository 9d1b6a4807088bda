"""The file of a sensor: a small Zarr v3 group, whole or not there.

    gain     (H, W) float32   relative to the mean of the good pixels
    dark     (H, W) float32   spikes a sample in the dark
    flaws    (H, W) uint8     1: hot, 2: dead, 4: filled from neighbours, and sums of these
    error    (H, W) float32   standard errors of the gains; only where a moving scene told them

Rows are upright. The group's attributes say what it was made from and what was found, and hold size
and checksum of every file.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...version import __version__
from ..host.files import StrPath, path_aside, shortened, sweep
from ..host.locks import only_writer_of
from ..host.validation import first_problem
from ..spikes.geometry import MAX_SIDE, MOST_PIXELS
from ..spikes.named_sensor import SENSOR
from ..spikes.presets import GeometrySpec
from ..spikes.sensor import Plane, Sensor, SensorError
from ..storage.base import StoreError
from ..storage.checksum import SummedFiles, checksum, content_checksum
from ..storage.folder import Folder
from ..store.arrays import METADATA, ArraySpec, DType
from ..store.records import read_attributes

AGAIN = "calibrate again, or copy the file again"

_ARRAYS: dict[str, DType] = {
    "gain": "float32",
    "dark": "float32",
    "flaws": "uint8",
    "error": "float32",
}
_FORMER = "former"


class Source(BaseModel):
    """A recording that a sensor was measured from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name of its file, without folders."""
    samples: int = Field(ge=1)
    """Spike samples."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of its bytes."""


class SensorRecord(BaseModel):
    """Attributes of a sensor's file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: str = SENSOR.name
    schema_version: int = SENSOR.schema_version
    version: str = __version__
    """Version of the spikedeblur that wrote it."""
    shape: tuple[int, int]
    """(H, W) of the sensor, in pixels."""
    geometry: GeometrySpec
    """Geometry of the recordings that it was measured from."""
    even: bool
    """Whether smooth differences of the flat field are the pixels'."""
    sources: dict[str, Source]
    """The recordings, by what they show: dark, flat, scene, scene 2 and so on."""
    found: dict[str, float | int | None]
    """Figures of what was found; see `calibrate.measure.Figures`."""
    files: dict[str, int] = Field(default_factory=dict)
    """Size in bytes of each file."""
    crc32: dict[str, str] = Field(default_factory=dict)
    """Checksum of each file, in hex."""
    record_crc32: str | None = None
    """Checksum of the attributes without this value."""


@dataclass(frozen=True, slots=True)
class SensorFile:
    """An open sensor file."""

    path: Path
    sensor: Sensor
    record: SensorRecord

    @property
    def sha256(self) -> str:
        """SHA-256 of all that decides how pixels are corrected, in hex."""
        return self.sensor.sha256


def is_sensor(path: StrPath) -> bool:
    """Whether a sensor's file, in any form, is at a path."""
    return _attributes(Path(path)) is not None


def recover(path: StrPath) -> None:
    """Bring back the sensor's file that a killed `calibrate --overwrite` had put aside.

    It does so while the new one has not got the name; where it has, the former one is removed.
    """
    path = Path(path)
    for former in path.parent.glob(f".{glob.escape(shortened(path.name))}.*.{_FORMER}"):
        if os.path.lexists(path):
            shutil.rmtree(former, ignore_errors=True)
        else:
            with suppress(OSError):  # another reader was faster
                former.rename(path)


def require_free_sensor(path: StrPath, *, overwrite: bool) -> None:
    """Refuse to write over what is no sensor file, or over one without `overwrite`.

    Raises:
        SensorError: it is so.
    """
    path = Path(path)
    recover(path)
    if not os.path.lexists(path):
        return
    if not is_sensor(path) and not (overwrite and _is_wreck(path)):
        raise SensorError(
            f"{path}: expected a new name for the sensor's file, found something else there; "
            "choose another --out"
        )
    if not overwrite:
        raise SensorError(
            f"{path}: a sensor's file is there already; choose another --out, or give --overwrite"
        )


def write_sensor(
    path: StrPath,
    sensor: Sensor,
    record: SensorRecord,
    errors: Plane | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a sensor's file; it gets its name when all of it is on disk.

    Args:
        path: the folder to write.
        sensor: the pixels.
        record: what they were measured from; sizes and checksums are filled in.
        errors: standard errors of the gains; None: not told for each.
        overwrite: replace a sensor's file that is there.

    Raises:
        SensorError: something else is there.
        StoreWriteError: the disk can't take it.
    """
    from ..store.write import array_files

    path = Path(path)
    planes: dict[str, npt.NDArray[Any]] = {
        "gain": sensor.gain,
        "dark": sensor.dark,
        "flaws": sensor.flaws,
    }
    if errors is not None:
        planes["error"] = errors
    with only_writer_of(path):
        require_free_sensor(path, overwrite=overwrite)
        sweep(path.parent, path.name)
        aside = Folder(os.path.abspath(path_aside(path, "partial")))  # noqa: PTH100
        try:
            files = SummedFiles(aside)
            for name, plane in planes.items():
                spec = ArraySpec(
                    name=name,
                    dtype=_ARRAYS[name],
                    shape=sensor.shape,
                    chunks=sensor.shape,
                    dimensions=("y", "x"),
                )
                for key, content in array_files(spec, 0, plane).items():
                    files.write(key, [content])
            whole = record.model_copy(update={"files": files.sizes, "crc32": files.crc32})
            attributes = whole.model_dump(mode="json", exclude={"record_crc32"})
            attributes["record_crc32"] = content_checksum(attributes)
            group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            aside.write(METADATA, [(json.dumps(group, indent=1) + "\n").encode()])
            former = path_aside(path, _FORMER)
            if path.exists():
                path.rename(former)
            Path(aside.location).rename(path)
            if former.exists():
                Folder(os.path.abspath(former)).remove("")  # noqa: PTH100
        except BaseException:
            aside.remove("")
            raise


def read_sensor(path: StrPath) -> SensorFile:
    """Read a sensor's file, checking every value.

    Raises:
        SensorError: none is there, it is damaged, or it is something else; names it.
    """
    path = Path(path)
    if not os.path.lexists(path):
        recover(path)
    attributes = _attributes(path)
    if attributes is None:
        found = "something else" if os.path.lexists(path) else "nothing"
        raise SensorError(
            f"{path}: expected a sensor's file that `spikedeblur calibrate` wrote, found {found}; "
            "check the path"
        )
    SENSOR.require(attributes, path, SensorError, AGAIN)
    try:
        record = SensorRecord.model_validate(attributes)
    except ValidationError as error:
        raise SensorError(f"{path}: {first_problem(error)}; {AGAIN}") from error
    stated = {key: value for key, value in attributes.items() if key != "record_crc32"}
    if content_checksum(stated) != record.record_crc32:
        raise SensorError(f"{path}: {METADATA} is not what was written; {AGAIN}")
    height, width = record.shape
    if not (min(record.shape) >= 1 and max(record.shape) <= MAX_SIDE):
        raise SensorError(f"{path}: expected sides of 1 to {MAX_SIDE} pixels, found {record.shape}")
    if height * width > MOST_PIXELS:
        raise SensorError(f"{path}: expected at most {MOST_PIXELS} pixels, found {record.shape}")
    gain, dark, flaws = (_plane(path, record, name) for name in ("gain", "dark", "flaws"))
    try:
        return SensorFile(path, Sensor.of_maps(gain, dark, flaws), record)
    except SensorError as error:
        raise SensorError(f"{path}: {error}; {AGAIN}") from error


def _is_wreck(path: Path) -> bool:
    """Whether a folder holds a sensor's file whose attributes can't be read, and nothing else."""
    if not path.is_dir() or path.is_symlink():
        return False
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    own = {METADATA, *(f"{name}/{key}" for name in _ARRAYS for key in (METADATA, "c/0/0"))}
    return files <= own and {"gain/c/0/0", "flaws/c/0/0"} <= files


def _attributes(path: Path) -> dict[str, Any] | None:
    """Return the attributes of the group at a path; None: it is no sensor's file."""
    if not path.is_dir():
        return None
    try:
        attributes = read_attributes(Folder(os.path.abspath(path)), METADATA)  # noqa: PTH100
    except StoreError:
        return None
    return attributes if SENSOR.heads(attributes) else None


def _plane(path: Path, record: SensorRecord, name: str) -> npt.NDArray[Any]:
    """Read one of the maps, (H, W)."""
    key = f"{name}/c/0/0"
    dtype = np.dtype(_ARRAYS[name]).newbyteorder("<")
    expected = record.shape[0] * record.shape[1] * dtype.itemsize
    content = Folder(os.path.abspath(path)).read(key, max(expected, 1))  # noqa: PTH100
    if content is None or len(content) != expected or checksum([content]) != record.crc32.get(key):
        what = "missing" if content is None else "not what was written"
        raise SensorError(f"{path}: {key} is {what}; {AGAIN}")
    return np.frombuffer(content, dtype).reshape(record.shape).astype(_ARRAYS[name])


def figures_of(figures: Any) -> dict[str, float | int | None]:
    """Return the figures of a measurement as a record holds them."""
    content = dataclasses.asdict(figures)
    del content["warnings"]
    return content
