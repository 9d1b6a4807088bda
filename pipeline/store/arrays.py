"""One Zarr v3 array of a store: its shape, chunks, shards and codec.

    axis 0 |  shard 0: one file  |  shard 1  | ...     a shard holds the whole of the other axes
           | chunk | chunk | ... |                     a chunk is what one read decodes

A sequence's record holds them, so that opening a sequence takes one file; `zarr.json` says the same
to other readers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

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
MAX_CHUNK_BYTES = 2**28

DType = Literal["uint8", "uint16", "int64", "float32", "float64"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array of a sequence."""

    name: str
    dtype: DType
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
        if self.shards and any(c > side for c, side in zip(chunks, self.shape, strict=True)):
            raise ValueError(f"chunks {chunks} are larger than the array, {self.shape}")
        if any(s % c for s, c in zip(shards, chunks, strict=True)):
            raise ValueError(f"chunks {chunks} do not divide shards {shards}")
        if any(s < side for s, side in zip(shards[1:], self.shape[1:], strict=True)):
            raise ValueError("expected shards over the whole of all axes but the first")
        if math.prod(shards) * self.itemsize > MAX_SHARD_BYTES or self.chunks_a_shard > MAX_CHUNKS:
            raise ValueError(f"expected shards of at most {MAX_SHARD_BYTES} bytes, found {shards}")

        if self.chunk_bytes > MAX_CHUNK_BYTES:
            raise ValueError(f"expected chunks of at most {MAX_CHUNK_BYTES} bytes, found {chunks}")

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
