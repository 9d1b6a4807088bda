"""Shards written and read by the Zarr v3 specification (`sharding_indexed`).

    chunk 0 | chunk 1 | ... | index: (offset, length) of each chunk, uint64 | CRC-32C of the index

Zarr's own pipeline goes through its event loop once a chunk: 12 to 18 ms for writing a window of
32x360x640 whose encoding takes 4 to 8, and 0.1 to 0.3 ms a chunk for reading (zarr 3.1.6, 2-core
x86). Tests compare both directions with Zarr's.
"""

from __future__ import annotations

import itertools
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import google_crc32c
import numcodecs.blosc as blosc
import numpy as np

from ..storage.base import Buffer, Storage, StoreError
from ..storage.side_by_side import together
from .arrays import DAMAGED, LEVEL, METADATA, ArraySpec, parse_array

# Several threads finish Blosc's blocks in any order, but equal input must give equal files; and a
# pool of threads does not survive a fork. Work is divided between processes instead.
blosc.use_threads = False

Spans = Sequence[tuple[int, int]]
"""(start, stop) along each axis."""

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


def read_spec(storage: Storage, expected: ArraySpec) -> ArraySpec | None:
    """Return an array by its metadata in a sequence's folder, or None where there are none.

    Raises:
        StoreError: the metadata can't be used, or contradict the sequence's record: `expected`.
    """
    key = f"{expected.name}/{METADATA}"
    content = storage.read(key)
    if content is None:
        return None
    spec = parse_array(content, expected.name, str(storage))
    if (spec.shape, spec.dtype) != (expected.shape, expected.dtype):
        raise StoreError(
            f"{storage}: {key} says {spec.dtype} {spec.shape}, expected {expected.dtype} "
            f"{expected.shape} by the sequence's record; {DAMAGED}"
        )
    return spec


class ShardedArray:
    """Reader of boxes of one array, which reads each chunk that a box touches once.

    Args:
        storage: the sequence's folder.
        spec: the array.
        files: size in bytes of each file of the array, by path relative to the folder.
    """

    def __init__(self, storage: Storage, spec: ArraySpec, files: dict[str, int]) -> None:
        self.spec = spec
        self._storage = storage
        self._files = files
        self._indices: dict[int, list[tuple[int, int]]] = {}
        self._reading_index = threading.Lock()

    def read(self, spans: Spans, out: np.ndarray | None = None) -> np.ndarray:
        """Return the box `spans`, which lies inside the array.

        Args:
            spans: (start, stop) along each axis.
            out: filled and returned, if given.

        Raises:
            StoreError: a chunk is missing or damaged.
        """
        spec = self.spec
        if out is None:
            out = np.empty([stop - start for start, stop in spans], spec.dtype)
        (first, last), inner = spans[0], spans[1:]
        across = [list(_pieces(*span, c)) for span, c in zip(inner, spec.chunks[1:], strict=True)]
        reads = []
        for file in range(first // spec.per_file, -(-last // spec.per_file)):
            origin = file * spec.per_file
            start, stop = max(first, origin), min(last, origin + spec.per_file)
            along = _pieces(start - origin, stop - origin, spec.chunks[0], start - first)
            pieces = list(itertools.product(along, *across))
            reads.append(partial(self._read_file, file, pieces, out))
        together(reads, side_by_side=not self._storage.is_local)
        return out

    def _read_file(self, file: int, pieces: list[Any], out: np.ndarray) -> None:
        spec = self.spec
        index = self._index(file)
        spans = []
        for piece in pieces:
            number = 0
            for (at, _, _), n in zip(piece, spec.grid, strict=True):
                number = number * n + at
            spans.append(index[number])
        key = spec.key(file)
        for piece, content in zip(pieces, self._storage.ranges(key, spans), strict=True):
            chunk = self._decode(content, key)
            copy_box(chunk[tuple(of for _, of, _ in piece)], out[tuple(to for _, _, to in piece)])

    def _decode(self, content: Buffer, key: str) -> np.ndarray:
        spec = self.spec
        try:
            if spec.codec == "none":
                return np.frombuffer(content, spec.dtype).reshape(spec.chunks)
            # Blosc trusts its header: bytes after decoding, bytes of a block, bytes in all.
            size, _, length = struct.unpack_from("<3I", content, 4)
            if (size, length) != (spec.chunk_bytes, len(content)):
                raise ValueError(f"{size} bytes from {length}, expected {spec.chunk_bytes}")
            chunk = scratch("chunk", spec.chunks, spec.dtype)
            blosc.decompress(content, chunk)
        except (ValueError, RuntimeError, struct.error) as error:
            raise self._damaged(key, f"a chunk does not decode ({error})") from error
        return chunk

    def _index(self, file: int) -> list[tuple[int, int]]:
        held = self._indices.get(file)
        if held is None:
            with self._reading_index:  # once, however many threads want it
                held = self._indices.get(file)
                if held is None:
                    held = self._indices[file] = self.read_index(file)
        return held

    def read_index(self, file: int) -> list[tuple[int, int]]:
        """Return (offset, length) of each chunk of a file, in the order of the grid.

        Raises:
            StoreError: the index is damaged, lacks a chunk or points outside; names the file.
        """
        spec, key = self.spec, self.spec.key(file)
        if spec.shards is None:
            return [(0, self._files[key])]
        length = 16 * spec.chunks_a_shard
        start = self._files[key] - length - 4
        if start < 0:
            raise self._damaged(key, "it is shorter than its index")
        (content,) = self._storage.ranges(key, [(start, length + 4)])
        body, checksum = bytes(content[:length]), bytes(content[length:])
        if google_crc32c.value(body).to_bytes(4, "little") != checksum:
            raise self._damaged(key, "the checksum of its index is wrong")
        index = np.frombuffer(body, "<u8").reshape(-1, 2)
        used = index[:, 0] != _ABSENT
        if (index[used].max(initial=0) > start) or (index[used].sum(axis=1) > start).any():
            raise self._damaged(key, "its index points outside")
        if spec.codec == "none" and (index[used, 1] != spec.chunk_bytes).any():
            raise self._damaged(key, "a chunk has another size")
        if not used[self._expected(file)].all():
            raise self._damaged(key, "a chunk is missing")
        return [(int(offset), int(length)) for offset, length in index]

    def _expected(self, file: int) -> np.ndarray:
        """Return the numbers of the chunks that hold data: those outside the array do not."""
        spec = self.spec
        rows = min(spec.per_file, spec.shape[0] - file * spec.per_file)
        used = [-(-side // c) for side, c in zip((rows, *spec.shape[1:]), spec.chunks, strict=True)]
        numbers = np.arange(spec.chunks_a_shard).reshape(spec.grid)
        return numbers[tuple(slice(n) for n in used)].ravel()

    def _damaged(self, key: str, what: str) -> StoreError:
        return StoreError(f"{self._storage}: can't read {self.spec.name}: {key}: {what}; {DAMAGED}")


def _pieces(start: int, stop: int, chunk: int, at: int = 0) -> Iterator[tuple[int, slice, slice]]:
    """Yield (chunk's number, its part of [start, stop), where that goes from `at` on)."""
    for number in range(start // chunk, -(-stop // chunk)):
        origin = number * chunk
        first, last = max(start, origin), min(stop, origin + chunk)
        place = at + first - start
        yield number, slice(first - origin, last - origin), slice(place, place + last - first)


def copy_box(source: np.ndarray, target: np.ndarray) -> None:
    """Copy a box, each of its rows as one item: half the time, for rows of 8 to 128 bytes."""
    row = np.dtype((np.void, source.shape[-1] * source.itemsize))
    if source.strides[-1] == target.strides[-1] == source.itemsize:
        source, target = source.view(row), target.view(row)
    target[...] = source


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
