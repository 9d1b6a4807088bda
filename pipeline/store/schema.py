"""What a store holds: names, shapes, chunks, codecs, and each sequence's record.

A store is a Zarr v3 hierarchy that any reader of Zarr opens. The group's path is the
sequence's `seq`:

    voxels       (N, K, h, w)     uint8, uint16 where a bin can exceed 255; raw counts
    blur, sharp  (N, H, W, 3)     uint8 RGB
    samples      (N,) int64       spike samples in each window
    t0, t1       (N,) float64     seconds, both ends belong to the window
    frame_index  (N,) int64

A shard is one file of S windows over the whole image; the chunks inside it are what a crop
reads. The group's attributes are a `SequenceRecord`; `complete` is written last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ... import __version__
from ...errors import SpikeDeblurError
from ..spikes.geometry import parse_geometry

FORMAT: Final = "spikedeblur.store"
SCHEMA_VERSION: Final = 1

SHARD_BYTES = 32 * 2**20
"""Raw bytes of all arrays' shards of one task: bounds a worker's memory and gives few files."""

CHUNK_SIDE = 128
"""Pixels: chunks for crop reads have about this side."""

# Limits on what metadata from outside may claim, far above any camera. They are checked
# before anything is allocated.
MAX_SIDE = 2**16
MAX_BINS = 2**12
MAX_WINDOWS = 10**7
MAX_SHARD_BYTES = 2**33

Kind = Literal["counts", "npy"]
VoxelType = Literal["uint8", "uint16"]


class StoreError(SpikeDeblurError):
    """A store can't be written or read; the message names the sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array of a sequence, as Zarr is told to make it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """What one read decodes."""
    shards: tuple[int, ...] | None
    """What one file holds; None: each chunk is a file."""
    dimensions: tuple[str, ...]

    def shard_keys(self, start: int, stop: int) -> list[str]:
        """Return the paths, relative to the group, of the files of windows [start, stop)."""
        per_file = (self.shards or self.chunks)[0]
        rest = "/0" * (len(self.shape) - 1)
        first, end = start // per_file, -(-stop // per_file)
        return [f"{self.name}/c/{i}{rest}" for i in range(first, end)]

    @property
    def compression(self) -> tuple[Literal["lz4", "zstd"], int]:
        """Blosc's compressor and level, after bit shuffling.

        Counts are small numbers, so bit planes are what compresses, and lz4 decodes fastest.
        Photographs gain by zstd: 1.53 against 1.37, at 1.2 GB/s a core (2-core x86, 2026).
        """
        return ("zstd", 1) if self.name in ("blur", "sharp") else ("lz4", 5)

    def codec(self) -> Any:
        """Return the Zarr compressor."""
        from zarr.codecs import BloscCodec

        cname, clevel = self.compression
        typesize = 2 if self.dtype == "uint16" else 1
        return BloscCodec(cname=cname, clevel=clevel, shuffle="bitshuffle", typesize=typesize)


def shard_windows(
    windows: int,
    bins: int,
    voxel_shape: tuple[int, int],
    frame_shape: tuple[int, int],
    has_sharp: bool,
    voxel_dtype: str,
) -> int:
    """Return S: as many windows as fit `SHARD_BYTES`, spread evenly over the shards."""
    a_window = bins * math.prod(voxel_shape) * (2 if voxel_dtype == "uint16" else 1)
    a_window += 3 * math.prod(frame_shape) * (2 if has_sharp else 1)
    most = max(1, min(windows, SHARD_BYTES // a_window))
    return -(-windows // -(-windows // most))


def chunk_side(side: int) -> int:
    """Return a chunk side near `CHUNK_SIDE` that splits `side` evenly: little padding."""
    return -(-side // max(1, round(side / CHUNK_SIDE)))


class SourceMark(BaseModel):
    """A file as it was when a sequence was made from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: int = Field(ge=0)
    """In bytes."""
    mtime_ns: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _require_inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\x00" in path or not pure.parts:
        raise ValueError("expected a path inside the sequence")
    return path


class Completion(BaseModel):
    """Written last: what a whole sequence consists of."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: dict[Annotated[str, AfterValidator(_require_inside)], int]
    """Size in bytes of each file with data; a missing one would read as zeros."""
    sources: dict[str, SourceMark]
    """By path relative to the data set's folder: every file that was read."""
    manifest_sha256: str


class SequenceRecord(BaseModel):
    """A sequence's attributes: what it is and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["spikedeblur.store"] = FORMAT
    schema_version: Literal[1] = SCHEMA_VERSION
    version: str = __version__
    """Of the spikedeblur that wrote it."""
    kind: Kind
    """counts: Zarr arrays; npy: files in the unified layout."""
    seq: str
    bins: int = Field(ge=1, le=MAX_BINS)
    geometry: str
    """Of the source's `.dat`, as `SpikeGeometry.describe()` writes it."""
    rate: float = Field(gt=0)
    """Spike frames a second, in Hz."""
    first: float | None
    """Time in seconds of the recording's sample 0; None where each window has its own file."""
    gain: float | None = Field(gt=0)
    """Spikes a sample at unit luminance; None: not known."""
    windows: int = Field(ge=1, le=MAX_WINDOWS)
    shard_windows: int = Field(ge=1)
    voxel_dtype: VoxelType
    voxel_shape: tuple[int, int]
    frame_shape: tuple[int, int]
    has_sharp: bool
    plan_sha256: str
    """Of all that decides the content, except the source files themselves."""
    complete: Completion | None = None

    @model_validator(mode="after")
    def _check_sizes(self) -> SequenceRecord:
        parse_geometry(self.geometry)
        for side in (*self.voxel_shape, *self.frame_shape):
            if not 1 <= side <= MAX_SIDE:
                raise ValueError(f"expected sides of 1 to {MAX_SIDE} pixels, found {side}")
        if self.shard_windows > self.windows:
            raise ValueError("expected no more windows a shard than there are")
        raw = self.shard_windows * self.bins * math.prod(self.voxel_shape) * 2
        raw += self.shard_windows * math.prod(self.frame_shape) * 3
        if raw > MAX_SHARD_BYTES:
            raise ValueError(f"expected shards of at most {MAX_SHARD_BYTES} bytes, found {raw}")
        return self

    def arrays(self) -> dict[str, ArraySpec]:
        """Return the sequence's arrays by name."""
        n, s = self.windows, self.shard_windows
        h, w = self.voxel_shape
        specs = [
            _sharded(
                "voxels",
                self.voxel_dtype,
                (n, self.bins, h, w),
                (1, self.bins, chunk_side(h), chunk_side(w)),
                s,
                ("window", "bin", "voxel_y", "voxel_x"),
            )
        ]
        height, width = self.frame_shape
        specs += [
            _sharded(
                name,
                "uint8",
                (n, height, width, 3),
                (1, chunk_side(height), chunk_side(width), 3),
                s,
                ("window", "y", "x", "channel"),
            )
            for name in (("blur", "sharp") if self.has_sharp else ("blur",))
        ]
        small = {"samples": "int64", "t0": "float64", "t1": "float64", "frame_index": "int64"}
        specs += [
            ArraySpec(
                name=name,
                dtype=dtype,
                shape=(n,),
                chunks=(n,),
                shards=None,
                dimensions=("window",),
            )
            for name, dtype in small.items()
        ]
        return {spec.name: spec for spec in specs}


def parse_record(attributes: Any, where: str) -> SequenceRecord:
    """Read a sequence's attributes, checking every value before anything is allocated.

    Raises:
        StoreError: another schema version, or a value that cannot be; names `where`.
    """
    found = attributes.get("schema_version") if isinstance(attributes, dict) else None
    if found != SCHEMA_VERSION:
        raise StoreError(
            f"{where}: expected store schema {SCHEMA_VERSION}, found {found!r}; voxelize again, "
            "or update spikedeblur if the store is newer"
        )
    try:
        return SequenceRecord.model_validate(attributes)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "attributes"
        raise StoreError(
            f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}; the store is "
            "damaged or not ours: voxelize again with --overwrite"
        ) from error


def _sharded(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    windows: int,
    dimensions: Sequence[str],
) -> ArraySpec:
    whole = tuple(-(-side // chunk) * chunk for side, chunk in zip(shape, chunks, strict=True))
    return ArraySpec(
        name=name,
        dtype=dtype,
        shape=shape,
        chunks=chunks,
        shards=(windows, *whole[1:]),
        dimensions=tuple(dimensions),
    )
