"""Content of a store: names, shapes, chunks, codecs, and each sequence's record.

A store is a Zarr v3 hierarchy that any reader of Zarr opens. The group's path is the
sequence's `seq`. Kind `packed` keeps the spikes themselves and counts them when they are read;
kind `counts` keeps counts in K bins:

    spikes        (S, h, ceil(w / 8))  uint8   packed: each sample that a window needs, once, in
                                               order; rows upright, pixel x is bit x % 8 of byte
                                               x // 8, bits past the width are 0
    first_sample  (N,) int64                   packed: each window's first sample in `spikes`
    voxels        (N, K, h, w)         uint8   counts: uint16 where a bin can exceed 255
    blur, sharp   (N, H, W, 3)         uint8   RGB; uint16 where the source has 16 bits
    samples       (N,) int64                   spike samples in each window
    t0, t1        (N,) float64                 seconds, both ends belong to the window
    frame_index   (N,) int64
    sharp_instants (N, M, H, W, 3)             where `align --instants M` named them, as `sharp`
    instants      (M,) float64                 their times, in exposures from the middle
    sensor_gain, sensor_dark (h, w) float32    where a sensor's file was named: its maps, as in that
    sensor_flaws  (h, w) uint8                 file; spikes and counts are as they were recorded

A shard is one file over the whole image; the chunks inside it are what a crop reads. The group's
attributes are a `SequenceRecord`; `complete` is written last. A store may hold other arrays, which
the record lists and readers that do not know them leave alone.

A sequence can be continued: the files of all arrays of windows end at the same multiples of one
number of windows, those of `spikes` at multiples of their shard. What is appended begins in new
files there, so that no file that is complete changes but the metadata.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from ...version import __version__
from ..host.files import stays_below
from ..host.header import ProductFormat
from ..host.pieces import HashForm
from ..host.validation import first_problem
from ..spikes.bounds import MOST_COUNT, MOST_SECONDS, Count, Gain, Hertz, Instant
from ..spikes.presets import parse_geometry
from ..spikes.registration import Matrix
from ..storage.base import StoreError
from .arrays import DAMAGED, ArraySpec, Codec, DType, divide

STORE = ProductFormat("spikedeblur.store", 3)

SHARD_BYTES = 32 * 2**20
"""Raw bytes of the shards that one task writes: bounds a worker's memory and gives few files."""

CHUNK_SIDE = 128
"""Side of the chunks that crops read, about, in pixels."""

SPIKE_CHUNK = (192, 320)
"""Rows and columns of a chunk of packed spikes, about, in pixels. Packed spikes are small, so
larger chunks, of which a crop touches fewer, are read faster."""

CHUNK_SAMPLES = 96
"""Most spike samples of a chunk of packed spikes, about."""

# Limits on what metadata from outside may claim, far above any camera. They are checked
# before anything is allocated.
MAX_SIDE = 2**16
MAX_BINS = 2**12
MAX_WINDOWS = 10**7
MAX_SAMPLES = 10**10

SMALL_ARRAYS: dict[str, DType] = {
    "samples": "int64",
    "t0": "float64",
    "t1": "float64",
    "frame_index": "int64",
    "first_sample": "int64",
}
"""Types of the arrays with one value a window; `first_sample` is of kind packed only."""

SHARP_INSTANTS, INSTANTS = "sharp_instants", "instants"
"""Names of the optional arrays of sharp frames at several instants, and of when these are."""

SENSOR_MAPS: dict[str, DType] = {
    "sensor_gain": "float32",
    "sensor_dark": "float32",
    "sensor_flaws": "uint8",
}
"""Types of the optional maps of the sensor, in the spikes' own pixels; see `spikes.sensor`."""

Kind = Literal["packed", "counts", "npy"]
VoxelType = Literal["uint8", "uint16"]


def shard_windows(windows: int, window_bytes: int) -> int:
    """Return S: as many windows as fit `SHARD_BYTES`, spread evenly over the shards."""
    most = max(1, min(windows, SHARD_BYTES // window_bytes))
    return -(-windows // -(-windows // most))


def voxel_type(samples: int, bins: int) -> VoxelType:
    """Return the type that holds the counts of a window of so many samples."""
    return "uint16" if -(-samples // bins) > 255 else "uint8"


class SourceMark(BaseModel):
    """A file as it was when a sequence was made from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: Count
    """Size in bytes."""
    mtime_ns: int = Field(ge=-MOST_COUNT, le=MOST_COUNT)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    piece: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Bytes of the pieces whose digests `sha256` is of; None: it is of the content itself."""
    part: tuple[Count, Count] | None = Field(default=None, strict=False)
    """Bytes [start, stop) that `sha256` is of; None: all."""

    @property
    def form(self) -> HashForm:
        """How `sha256` is made."""
        return HashForm(self.piece, self.part)

    @model_serializer(mode="wrap")
    def _without_what_few_have(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = dump(self)
        return {k: v for k, v in content.items() if v is not None}


def _require_below(path: str) -> str:
    if not stays_below(path):
        raise ValueError("expected a relative path that stays inside the sequence")
    return path


InsidePath = Annotated[str, AfterValidator(_require_below)]


class Completion(BaseModel):
    """Completion mark of a sequence, written last: the files that it consists of."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: dict[InsidePath, Count]
    """Size in bytes of each file with data; a missing one would read as zeros."""
    crc32: dict[InsidePath, str] = Field(default_factory=dict)
    """Checksum of each file, metadata too, in hex; empty in stores of earlier releases."""
    record_crc32: str | None = None
    """Checksum of the record without this value; see `records.record_checksum`."""
    sources: dict[str, SourceMark]
    """Every file that was read, by path relative to the data set's folder."""
    manifest_sha256: str


class SequenceRecord(BaseModel):
    """A sequence's attributes: what it is and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: str = STORE.name
    schema_version: int = STORE.schema_version
    version: str = __version__
    """Version of the spikedeblur that wrote it."""
    kind: Kind
    """packed or counts: Zarr arrays; npy: files in the unified layout."""
    seq: str
    bins: int = Field(ge=1, le=MAX_BINS)
    """K, temporal bins; in kind packed only the default of readers."""
    geometry: str
    """Geometry of the source's `.dat`, as `SpikeGeometry.describe()` writes it."""
    rate: Hertz
    """Spike samples a second, in Hz."""
    first: Instant | None
    """Time in seconds of the recording's sample 0; None where each window has its own file."""
    gain: Gain | None
    """Spikes a sample at unit luminance; None: not known."""
    registered_by: Matrix | None = None
    """Homography from spike to frame pixels, 3x3, row by row; None: both cameras see the same."""
    windows: int = Field(ge=1, le=MAX_WINDOWS)
    stored_samples: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    """S, the samples that `spikes` holds, in kind packed; else None."""
    longest_window: int = Field(ge=1, le=MAX_SAMPLES)
    """Spike samples of the longest window."""
    shortest_window: int = Field(ge=1, le=MAX_SAMPLES)
    """Spike samples of the shortest window, which K can't exceed."""
    voxel_shape: tuple[int, int]
    frame_shape: tuple[int, int]
    has_sharp: bool
    codec: Codec = "lz4"
    """Compression of counts; nothing else is compressed."""
    readout: float | None = Field(default=None, ge=-MOST_SECONDS, le=MOST_SECONDS)
    """Seconds from the exposure of a frame's first row to that of its last; less than 0: the last
    row comes first. None: not known. Each row has its own spikes and counts; times are row 0's."""
    arrays: tuple[ArraySpec, ...] = ()
    """All arrays of the sequence; where none are given, those that `voxelize` makes."""
    blur_kind: str | None = None
    """Way in which the data set averaged frames: GoPro's blur or blur_gamma."""
    finding: str | None = None
    """What `align` found to be wrong with the spikes, where they were voxelized all the same."""
    sensor_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Hash of the maps by which the pixels are to be corrected, where the recording's side file
    or manifest named a sensor; stored spikes and counts are as recorded. None: none was named."""
    plan_sha256: str
    """SHA-256 of all that decides the content, except the source files themselves."""
    complete: Completion | None = None

    @model_serializer(mode="wrap")
    def _without_finding(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = dump(self)
        for name in ("finding", "sensor_sha256"):
            if content[name] is None:  # former releases don't know it
                del content[name]
        return content

    @model_validator(mode="after")
    def _check_sizes(self) -> SequenceRecord:
        parse_geometry(self.geometry)
        for side in (*self.voxel_shape, *self.frame_shape):
            if not 1 <= side <= MAX_SIDE:
                raise ValueError(f"expected sides of 1 to {MAX_SIDE} pixels, found {side}")
        if (self.stored_samples is None) == (self.kind == "packed"):
            raise ValueError("expected stored_samples in kind packed, and only there")
        if self.shortest_window > self.longest_window:
            raise ValueError("expected the shortest window no longer than the longest")
        frames = next((spec.dtype for spec in self.arrays if spec.name == "blur"), "uint8")
        planned = self._planned("uint16" if frames == "uint16" else "uint8")
        specs = {spec.name: spec for spec in self.arrays} or planned
        for name, expected in planned.items():
            found = specs.get(name)
            if found is None or (found.dtype, found.shape) != (expected.dtype, expected.shape):
                what = "none" if found is None else f"{found.dtype} {found.shape}"
                raise ValueError(
                    f"{name}: expected {expected.dtype} {expected.shape}, found {what}"
                )
        for spec in specs.values():
            if math.prod(spec.shape) > 2**60:
                raise ValueError(f"{spec.name}: absurd shape {spec.shape}")
        object.__setattr__(self, "arrays", tuple(specs.values()))
        return self

    @property
    def voxel_dtype(self) -> VoxelType:
        """Type of counts in the record's own bins."""
        return voxel_type(self.longest_window, self.bins)

    @property
    def voxel_bytes(self) -> int:
        """Bytes of one window's counts in memory."""
        itemsize = 2 if self.voxel_dtype == "uint16" else 1
        return self.bins * math.prod(self.voxel_shape) * itemsize

    @property
    def instants(self) -> int:
        """Number of sharp instants of each window that the sequence keeps; 0: none."""
        spec = self.specs.get(SHARP_INSTANTS)
        return 0 if spec is None else spec.shape[1]

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of the arrays of frames."""
        return ("blur", "sharp") if self.has_sharp else ("blur",)

    @property
    def specs(self) -> dict[str, ArraySpec]:
        """All arrays, by name."""
        return {spec.name: spec for spec in self.arrays}

    @property
    def frame_dtype(self) -> VoxelType:
        """Type of the frames."""
        spec = self.specs.get("blur")
        return "uint16" if spec is not None and spec.dtype == "uint16" else "uint8"

    def with_frames(self, dtype: VoxelType) -> SequenceRecord:
        """Return the record of the same sequence with frames of a type, before any is written."""
        return self.model_copy(update={"arrays": tuple(self._planned(dtype).values())})

    def with_instants(self, instants: int) -> SequenceRecord:
        """Return the record of the same sequence with sharp instants, before any is written."""
        planned = self._planned(self.frame_dtype, instants)
        return self.model_copy(update={"arrays": tuple(planned.values())})

    def with_sensor(self, sha256: str) -> SequenceRecord:
        """Return the record of the same sequence with a sensor of this hash, before any is written.

        In kind npy only the hash is recorded.
        """
        shape = parse_geometry(self.geometry).shape
        maps = [
            ArraySpec(name=name, dtype=dtype, shape=shape, chunks=shape, dimensions=("y", "x"))
            for name, dtype in SENSOR_MAPS.items()
        ]
        arrays = (*self.arrays, *([] if self.kind == "npy" else maps))
        return self.model_copy(update={"sensor_sha256": sha256, "arrays": arrays})

    def _planned(self, frames: VoxelType, instants: int = 0) -> dict[str, ArraySpec]:
        """Return the arrays that `voxelize` makes of this sequence, by name.

        Args:
            frames: type of the frames.
            instants: number of sharp instants of each window.
        """
        if self.kind == "npy":
            return {}
        n = self.windows
        (h, w), (height, width) = self.voxel_shape, self.frame_shape
        images = len(self.image_names) + instants
        frame_bytes = 3 * height * width * images * np.dtype(frames).itemsize
        packed, counts = self.kind == "packed", self.kind == "counts"
        whole = shard_windows(n, frame_bytes + (self.voxel_bytes if counts else 0))
        specs = []
        if packed:
            assert self.stored_samples is not None
            specs.append(_spikes(self.stored_samples, h, -(-w // 8), self.longest_window))
        if counts:
            shape = (n, self.bins, h, w)
            chunks = (1, self.bins, divide(h, CHUNK_SIDE), divide(w, CHUNK_SIDE))
            axes = ("window", "bin", "voxel_y", "voxel_x")
            voxels = _sharded("voxels", self.voxel_dtype, shape, chunks, whole, self.codec, axes)
            specs.append(voxels)
        shape = (n, height, width, 3)
        chunks = (1, divide(height, CHUNK_SIDE), divide(width, CHUNK_SIDE), 3)
        axes = ("window", "y", "x", "channel")
        specs += [
            _sharded(name, frames, shape, chunks, whole, "none", axes) for name in self.image_names
        ]
        if instants:
            specs += _of_instants(instants, specs[-1], frames)
        rows = -(-n // whole) * whole
        small = {k: v for k, v in SMALL_ARRAYS.items() if packed or k != "first_sample"}
        specs += [
            ArraySpec(name=name, dtype=dtype, shape=(n,), chunks=(rows,), dimensions=("window",))
            for name, dtype in small.items()
        ]
        return {spec.name: spec for spec in specs}


def parse_record(attributes: Any, where: str) -> SequenceRecord:
    """Read a sequence's attributes, checking every value before anything is allocated.

    Raises:
        StoreError: a schema version that is not read, or an impossible value; names `where`.
    """
    is_old = STORE.heads(attributes) and attributes.get("schema_version") == 2
    if is_old:
        attributes = attributes | {"schema_version": STORE.schema_version}
    STORE.require(attributes, where, StoreError, "voxelize into another folder")
    try:
        record = SequenceRecord.model_validate(attributes)
        if is_old:  # it lists no arrays, and those of one value a window end with the windows
            old = (replace(s, chunks=s.shape) if s.shards is None else s for s in record.arrays)
            record = record.model_copy(update={"arrays": tuple(old)})
        return record
    except ValidationError as error:
        raise StoreError(f"{where}: {first_problem(error)}; {DAMAGED}") from error


def _spikes(samples: int, height: int, row: int, window: int) -> ArraySpec:
    # A chunk no longer than a window: reading one window decodes little beside it.
    most = max(8, min(window, CHUNK_SAMPLES))
    chunks = (
        divide(samples, most),
        divide(height, SPIKE_CHUNK[0]),
        divide(row, SPIKE_CHUNK[1] // 8),
    )
    chunks_a_shard = max(1, SHARD_BYTES // (chunks[0] * height * row))
    whole = min(chunks_a_shard, -(-samples // chunks[0])) * chunks[0]
    dimensions = ("sample", "voxel_y", "voxel_x_bytes")
    return _sharded("spikes", "uint8", (samples, height, row), chunks, whole, "none", dimensions)


def _of_instants(instants: int, image: ArraySpec, frames: VoxelType) -> list[ArraySpec]:
    """Return the arrays of sharp instants, in files of as many windows as those of `image`."""
    shape, chunks = (image.shape[0], instants, *image.shape[1:]), (1, *image.chunks)
    axes = ("window", "instant", *image.dimensions[1:])
    sharp = _sharded(SHARP_INSTANTS, frames, shape, chunks, image.per_file, "none", axes)
    times = ArraySpec(
        name=INSTANTS,
        dtype="float64",
        shape=(instants,),
        chunks=(instants,),
        dimensions=("instant",),
    )
    return [sharp, times]


def _sharded(
    name: str,
    dtype: DType,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    along: int,
    codec: Codec,
    dimensions: tuple[str, ...],
) -> ArraySpec:
    """Return an array in shards of `along` on axis 0 and the whole of the others."""
    whole = tuple(-(-side // chunk) * chunk for side, chunk in zip(shape, chunks, strict=True))
    return ArraySpec(
        name=name,
        dtype=dtype,
        shape=shape,
        chunks=chunks,
        shards=(along, *whole[1:]),
        codec=codec,
        dimensions=dimensions,
    )
