"""One Zarr v3 array of a store: its shape, chunks, shards and codec, from and to `zarr.json`.

    axis 0 |  shard 0: one file  |  shard 1  | ...     a shard holds the whole of the other axes
           | chunk | chunk | ... |                     a chunk is what one read decodes

zarr-python writes the metadata. They are read here, because opening an array by it takes 2 ms,
and a data set has tens of thousands; what `voxelize` does not write is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from ..storage.base import StoreError

Codec = Literal["lz4", "zstd", "none"]
"""lz4, zstd: Blosc after bit shuffling; none: raw values, which local readers map into memory."""

METADATA: Final = "zarr.json"

DAMAGED: Final = (
    "the store is damaged; run `voxelize --check`, which writes damaged sequences again"
)
"""End of every message about a store that is not what was written."""

LEVEL: Final[dict[Codec, int]] = {"lz4": 5, "zstd": 1}
"""Blosc's compression levels."""

# Limits on what metadata from outside may claim. They are checked before anything is allocated.
MAX_SHARD_BYTES = 2**33
MAX_CHUNKS = 2**24

_DTYPES = ("uint8", "uint16", "int64", "float64")
_INDEX_CODECS = ["bytes", "crc32c"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array of a sequence."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """Shape that one read decodes."""
    shards: tuple[int, ...] | None = None
    """Shape that one file holds; None: each chunk is a file."""
    codec: Codec = "none"
    dimensions: tuple[str, ...]

    def __post_init__(self) -> None:
        chunks, shards = self.chunks, self.shards or self.chunks
        if not len(self.shape) == len(chunks) == len(shards):
            raise ValueError("shape, chunks and shards differ in their number of axes")
        if min((*self.shape, *chunks, *shards)) < 1:
            raise ValueError("expected sides of at least 1")
        if any(c > side for c, side in zip(chunks, self.shape, strict=True)):
            raise ValueError(f"chunks {chunks} are larger than the array, {self.shape}")
        if any(s % c for s, c in zip(shards, chunks, strict=True)):
            raise ValueError(f"chunks {chunks} do not divide shards {shards}")
        if any(s < side for s, side in zip(shards[1:], self.shape[1:], strict=True)):
            raise ValueError("expected shards over the whole of all axes but the first")
        if math.prod(shards) * self.itemsize > MAX_SHARD_BYTES or self.chunks_a_shard > MAX_CHUNKS:
            raise ValueError(f"expected shards of at most {MAX_SHARD_BYTES} bytes, found {shards}")

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return np.dtype(self.dtype).itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks of a shard along each axis."""
        return tuple(s // c for s, c in zip(self.shards or self.chunks, self.chunks, strict=True))

    @property
    def chunks_a_shard(self) -> int:
        """Number of chunks of a shard."""
        return math.prod(self.grid)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunks) * self.itemsize

    @property
    def per_file(self) -> int:
        """Length along axis 0 that one file holds."""
        return (self.shards or self.chunks)[0]

    def key(self, file: int) -> str:
        """Return the path of a file, counted along axis 0, relative to the group."""
        return f"{self.name}/c/{file}" + "/0" * (len(self.shape) - 1)

    def files(self) -> list[str]:
        """Return the paths of all files."""
        return [self.key(i) for i in range(-(-self.shape[0] // self.per_file))]


def divide(side: int, wanted: int) -> int:
    """Return a chunk side near `wanted` that splits `side` with the least padding.

    Sides from two thirds to one and a half times `wanted` are tried; among those that pad equally
    little, the nearest to `wanted` wins. A shorter `side` is one chunk.
    """
    if 2 * side <= 3 * wanted:
        return side
    return min(
        range(max(1, -(-2 * wanted // 3)), 3 * wanted // 2 + 1),
        key=lambda chunk: (-side % chunk, abs(chunk - wanted)),
    )


def parse_array(content: bytes, name: str, where: str) -> ArraySpec:
    """Read an array's `zarr.json`.

    Args:
        content: content of the file.
        name: name of the array.
        where: the sequence, for messages.

    Raises:
        StoreError: `voxelize` does not write such metadata, or a size is absurd.
    """
    try:
        metadata = json.loads(content)
        if metadata["zarr_format"] != 3 or metadata["node_type"] != "array":
            raise ValueError("no array of Zarr v3")
        grid, keys = metadata["chunk_grid"], metadata["chunk_key_encoding"]
        if grid["name"] != "regular" or keys["name"] != "default":
            raise ValueError("chunks of another form")
        if keys.get("configuration", {}).get("separator", "/") != "/":
            raise ValueError("chunk keys of another form")
        outer = tuple(_whole(side) for side in grid["configuration"]["chunk_shape"])
        codecs = metadata["codecs"]
        shards: tuple[int, ...] | None = None
        chunks = outer
        if codecs[0]["name"] == "sharding_indexed":
            sharding = codecs[0]["configuration"]
            index = [codec["name"] for codec in sharding["index_codecs"]]
            if len(codecs) != 1 or index != _INDEX_CODECS or sharding["index_location"] != "end":
                raise ValueError("shards of another form")
            _require_little(sharding["index_codecs"][0])
            shards, codecs = outer, sharding["codecs"]
            chunks = tuple(_whole(side) for side in sharding["chunk_shape"])
        if metadata["data_type"] not in _DTYPES:
            raise ValueError(f"data type {metadata['data_type']!r}")
        return ArraySpec(
            name=name,
            dtype=metadata["data_type"],
            shape=tuple(_whole(side) for side in metadata["shape"]),
            chunks=chunks,
            shards=shards,
            codec=_codec(codecs),
            dimensions=tuple(metadata.get("dimension_names") or ()),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{where}: {name}/{METADATA}: expected an array as `voxelize` writes it, found "
            f"something else ({error}); {DAMAGED}"
        ) from error


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, found {value!r}")
    return value


def _require_little(codec: dict[str, Any]) -> None:
    if codec["name"] != "bytes" or codec.get("configuration", {}).get("endian") == "big":
        raise ValueError("bytes of another order")


def _codec(codecs: list[dict[str, Any]]) -> Codec:
    _require_little(codecs[0])
    if len(codecs) == 1:
        return "none"
    name: Any = codecs[1]["configuration"]["cname"]
    if len(codecs) > 2 or codecs[1]["name"] != "blosc" or name not in get_args(Codec):
        raise ValueError("another compressor")
    codec: Codec = name
    return codec
