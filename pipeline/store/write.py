"""Writing of shards by the Zarr v3 specification (`sharding_indexed`).

chunk 0 | chunk 1 | ... | index: (offset, length) of each chunk, uint64 | CRC-32C of the index
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import google_crc32c
import numcodecs.blosc as blosc
import numpy as np

from ..storage.base import Buffer
from .arrays import LEVEL, ArraySpec

# Several threads finish Blosc's blocks in any order, but equal input must give equal files; and a
# pool of threads does not survive a fork. Work is divided between processes instead.
blosc.use_threads = False

_ABSENT = np.uint64(2**64 - 1)


def encode_shard(data: np.ndarray, spec: ArraySpec) -> Iterator[Buffer]:
    """Yield the bytes of one shard's file, chunk by chunk, then the index.

    Args:
        data: (n, ...) of the array's dtype; n may be less than the shard holds at the array's end.
        spec: the array; its chunks and shards.
    """
    index = np.full((*spec.grid, 2), _ABSENT, "<u8")
    used = tuple(-(-side // c) for side, c in zip(data.shape, spec.chunks, strict=True))
    chunk = np.zeros(spec.chunks, data.dtype)
    size = 0
    for place in np.ndindex(*used):
        region = tuple(slice(i * c, i * c + c) for i, c in zip(place, spec.chunks, strict=True))
        block = data[region]
        if block.shape != spec.chunks:
            chunk[...] = 0
        chunk[tuple(slice(side) for side in block.shape)] = block
        encoded = _encode(chunk, spec)
        yield encoded
        index[place] = size, len(encoded)
        size += len(encoded)
    content = index.tobytes()
    yield content
    yield google_crc32c.value(content).to_bytes(4, "little")


def _encode(chunk: np.ndarray, spec: ArraySpec) -> Buffer:
    if spec.codec == "none":
        return chunk.tobytes()
    return bytes(blosc.compress(chunk, spec.codec.encode(), LEVEL[spec.codec], blosc.BITSHUFFLE))


_local = threading.local()


def scratch(name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return an array to fill, the same memory whenever this thread asks for `name`.

    Fresh pages cost more than the work done in them: the system clears them one fault at a time.
    """
    held: np.ndarray | None = getattr(_local, name, None)
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if held is None or held.nbytes < nbytes:
        held = np.empty(nbytes, np.uint8)
        setattr(_local, name, held)
    return held[:nbytes].view(dtype).reshape(shape)
