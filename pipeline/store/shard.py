"""Reading of boxes of a sharded array (Zarr v3, `sharding_indexed`).

    chunk 0 | chunk 1 | ... | index: (offset, length) of each chunk, uint64 | CRC-32C of the index

TensorStore reads what lies in a local folder. It has no driver for Azure and does not survive a
fork, so what lies in a bucket, or is read in a forked child, is cut out of its chunks here. Either
way a shard's index is looked at first: a chunk that it lacks would be read as zeros.
"""

from __future__ import annotations

import functools
import itertools
import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import google_crc32c
import numcodecs.blosc as blosc
import numpy as np

from ..storage.base import Storage, StoreError
from ..storage.side_by_side import together
from .arrays import DAMAGED, METADATA, ArraySpec

Spans = Sequence[tuple[int, int]]
"""(start, stop) along each axis."""

Pending = Callable[[], np.ndarray]
"""Wait for a box that is being read, and return it."""

_ABSENT = np.uint64(2**64 - 1)


class StoredArray:
    """Reader of boxes of one array.

    Args:
        storage: the sequence's folder.
        spec: the array.
        files: size in bytes of each file of the array, by path relative to the folder.
        require_whole: called with the path of a file before anything of it is read.
    """

    def __init__(
        self,
        storage: Storage,
        spec: ArraySpec,
        files: dict[str, int],
        require_whole: Callable[[str], None] = lambda key: None,
    ) -> None:
        self.spec = spec
        self._storage = storage
        self._files = files
        self._require_whole = require_whole
        self._indices: dict[int, np.ndarray] = {}
        self._opened: Any = None
        if storage.is_local and not _is_forked():
            self._opened = self._open()

    def begin(self, spans: Spans) -> Pending:
        """Begin to read the box `spans`, which lies inside the array.

        Raises:
            StoreError: a chunk is missing or damaged; when beginning, or when the box is taken.
        """
        first, last = (side // self.spec.per_file for side in (spans[0][0], spans[0][1] - 1))
        together(
            [partial(self._index, file) for file in range(first, last + 1)],
            side_by_side=not self._storage.is_local,
        )
        if self._opened is None or _is_forked():
            return partial(self._read_chunks, spans)
        future = self._opened[tuple(slice(*span) for span in spans)].read()
        return partial(self._explained, future.result)

    def read(self, spans: Spans) -> np.ndarray:
        """Return a box; see `begin`."""
        return self.begin(spans)()

    def _open(self) -> Any:
        import tensorstore

        kvstore = {"driver": "file", "path": f"{self._storage}/{self.spec.name}/"}
        # Else a shard that is missing would be read as zeros.
        form = {"driver": "zarr3", "kvstore": kvstore, "fill_missing_data_reads": False}
        opened = self._explained(tensorstore.open(form, context=_context(), read=True).result)
        spec, layout = self.spec, opened.chunk_layout
        found = opened.dtype.name, opened.shape, layout.read_chunk.shape, layout.write_chunk.shape
        expected = spec.dtype, spec.shape, spec.chunks, spec.shards or spec.chunks
        if found != expected:
            raise StoreError(
                f"{self._storage}: {spec.name}/{METADATA} says {found} for type, shape, chunks and "
                f"shards, expected {expected} by the sequence's record; {DAMAGED}"
            )
        return opened

    def _explained(self, wait: Callable[[], Any]) -> Any:
        try:
            return wait()
        except ValueError as error:
            what = " ".join(str(error).partition("[")[0].split())[:300]
            raise self._damaged(self.spec.name, what) from error

    def _read_chunks(self, spans: Spans) -> np.ndarray:
        """Read a box out of its chunks; those of several files side by side in a bucket."""
        spec = self.spec
        out = np.empty([stop - start for start, stop in spans], spec.dtype)
        touched = (range(a // c, -(-b // c)) for (a, b), c in zip(spans, spec.chunks, strict=True))
        by_file: dict[int, list[tuple[int, ...]]] = {}
        for place in itertools.product(*touched):
            by_file.setdefault(place[0] // spec.grid[0], []).append(place)

        def fill(file: int, places: list[tuple[int, ...]]) -> None:
            key, index = spec.key(file), self._index(file)
            chunks = [index[(p[0] % spec.grid[0], *p[1:])].tolist() for p in places]
            for place, content in zip(places, self._storage.read_ranges(key, chunks), strict=True):
                chunk = self._decode(content, key)
                source, target = [], []
                for i, side, (start, stop) in zip(place, spec.chunks, spans, strict=True):
                    low, high = max(i * side, start), min((i + 1) * side, stop)
                    source.append(slice(low - i * side, high - i * side))
                    target.append(slice(low - start, high - start))
                out[tuple(target)] = chunk[tuple(source)]

        fills = [partial(fill, file, places) for file, places in by_file.items()]
        together(fills, side_by_side=not self._storage.is_local)
        return out

    def _decode(self, content: bytes | memoryview, key: str) -> np.ndarray:
        spec = self.spec
        try:
            if spec.codec == "none":
                return np.frombuffer(content, spec.dtype).reshape(spec.chunks)
            # Blosc trusts its header: bytes after decoding, bytes of a block, bytes in all.
            size, _, length = struct.unpack_from("<3I", content, 4)
            if (size, length) != (spec.chunk_bytes, len(content)):
                raise ValueError(f"{size} bytes from {length}, expected {spec.chunk_bytes}")
            chunk = np.empty(spec.chunks, spec.dtype)
            blosc.decompress(content, chunk)
        except (ValueError, RuntimeError, struct.error) as error:
            raise self._damaged(key, f"a chunk does not decode ({error})") from error
        return chunk

    def _index(self, file: int) -> np.ndarray:
        if file not in self._indices:
            self._require_whole(self.spec.key(file))
            self._indices[file] = self.read_index(file)
        return self._indices[file]

    def read_index(self, file: int) -> np.ndarray:
        """Return (offset, length) of each chunk of a file, as (*grid, 2).

        Raises:
            StoreError: the index is damaged, lacks a chunk, points outside or twice to a place.
        """
        spec, key = self.spec, self.spec.key(file)
        if spec.shards is None:
            return np.array([0, self._files[key]]).reshape(*spec.grid, 2)
        length = 16 * spec.chunks_a_shard
        start = self._files[key] - length - 4
        if start < 0:
            raise self._damaged(key, "it is shorter than its index")
        (content,) = self._storage.read_ranges(key, [(start, length + 4)])
        body, checksum = bytes(content[:length]), bytes(content[length:])
        if google_crc32c.value(body).to_bytes(4, "little") != checksum:
            raise self._damaged(key, "the checksum of its index is wrong")
        index = np.frombuffer(body, "<u8").reshape(*spec.grid, 2)
        rows = min(spec.per_file, spec.shape[0] - file * spec.per_file)
        held = (rows, *spec.shape[1:])  # chunks outside of it are none
        inside = (-(-side // c) for side, c in zip(held, spec.chunks, strict=True))
        needed = index[tuple(slice(n) for n in inside)].reshape(-1, 2)
        used = index[index[..., 0] != _ABSENT]
        used = used[np.argsort(used[:, 0])]
        if (used.max(initial=0) > start) or (used.sum(axis=1) > start).any():
            raise self._damaged(key, "its index points outside")
        if (used[:-1].sum(axis=1) > used[1:, 0]).any():
            raise self._damaged(key, "chunks overlap")
        if spec.codec == "none" and (used[:, 1] != spec.chunk_bytes).any():
            raise self._damaged(key, "a chunk has another size")
        if (needed[:, 0] == _ABSENT).any():
            raise self._damaged(key, "a chunk is missing")
        return index

    def _damaged(self, key: str, what: str) -> StoreError:
        return StoreError(f"{self._storage}: can't read {self.spec.name}: {key}: {what}; {DAMAGED}")


@functools.lru_cache(1)
def _context() -> Any:
    """Return what all arrays of this process share: files are mapped, and one thread copies.

    Training has processes of its own; more threads in each take more of its cores for less.
    """
    import tensorstore

    global _tensorstore_pid
    _tensorstore_pid = os.getpid()
    limits = {"data_copy_concurrency": {"limit": 1}, "file_io_mode": {"mode": "memmap"}}
    return tensorstore.Context(limits)


_tensorstore_pid: int | None = None
"""The process that TensorStore's threads are in; it ends a forked child that uses it."""


def _is_forked() -> bool:
    return _tensorstore_pid not in (None, os.getpid())
