"""Storage of files: a local folder (`folder.py`), or a bucket of an object store (`bucket.py`).

The rest of the package writes and reads through `Storage` and does not know which it is. Keys are
relative POSIX paths inside the storage; '' is its top.

A reader does not notice that a file was replaced while it reads, so products do not change once
they are marked complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Protocol

from ...errors import SpikeDeblurError
from ..host.files import UnsafePathError


class StoreError(SpikeDeblurError):
    """A store can't be written or read; the message names the sequence."""


class StoreWriteError(StoreError):
    """The store can't be written: no other sequence would fare better."""


Buffer = bytes | memoryview

READ_LIMIT = 256 * 2**20
"""Most bytes that `read` takes into memory where its caller sets no other limit. Metadata are far
smaller."""

PIECE = 8 * 2**20
"""Bytes that `stream` reads at once."""


class Storage(Protocol):
    """Place of files. It pickles as its location; connections are made where they are used.

    Every failure is a `StoreError` that names the location; a key that would leave the storage
    is an `UnsafePathError`.
    """

    location: str
    """Name in messages, which `open_storage` takes: a URL or an absolute path."""
    is_local: ClassVar[bool]
    """Whether `location` is a folder's path."""

    def __init__(self, location: str) -> None:
        self.location = location

    def __str__(self) -> str:
        return self.location

    def child(self, key: str) -> Storage:
        """Return the storage below this one."""

    def cached(self) -> Storage:
        """Return the same storage, read through this machine's disk cache (`disk_cache.py`).

        Files whose size was asked for by `sizes_of` are: what it found tells one version of them
        from the next. A folder has no cache, and a bucket has one where the user asks for it.

        Raises:
            StoreError: the cache's folder can't be used.
        """

    def read(self, key: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return a whole file, or None where there is none.

        Raises:
            StoreError: it has more than `limit` bytes; nothing was read.
        """

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield a file's content in pieces of `PIECE` bytes, so that memory stays flat.

        Raises:
            StoreError: there is no such file, or it can't be read.
        """

    def write(self, key: str, parts: Iterable[Buffer], *, durable: bool = True) -> int:
        """Write a file, all of it or nothing, over what is there.

        Args:
            key: the file.
            parts: its content in order; contiguous buffers of any type.
            durable: it must outlast a power cut (folders only: buckets always promise that).

        Returns:
            Its size in bytes.
        """

    def size(self, key: str) -> int | None:
        """Return a file's size in bytes, or None where there is none."""

    def sizes(self, key: str = "") -> dict[str, int]:
        """Return the size in bytes of every file below `key`, by key relative to this storage.

        Hidden and half-written files are left out. The result is empty if nothing is there.
        """

    def sizes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the size in bytes of each of these files that exists."""

    def folders(self, key: str = "") -> list[str]:
        """Return the names of the folders directly below `key`, sorted, hidden ones left out."""

    def remove(self, key: str) -> None:
        """Remove the file `key` and everything below; what isn't there is no error.

        A removal that is cut short leaves nothing that can be taken for whole.
        """

    def sweep(self, key: str = "", *, own: bool = False) -> None:
        """Remove what a killed run left half written or half removed directly in `key`.

        Files younger than this process stay, unless `own`: workers of this process left them.
        """

    def read_ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Return the bytes of a file at each (offset, length).

        Raises:
            StoreError: there is no such file, or a span is not inside it.
        """


def check_key(location: str, key: str, *, may_be_top: bool = False) -> str:
    """Return the key.

    Raises:
        UnsafePathError: it is not a plain relative path inside the storage.
        StoreError: it is the top, where a file is needed.
    """
    if not key and may_be_top:
        return key
    if not key:
        raise StoreError(f"{location}: expected a file's key, found ''; name a file inside")
    if "\x00" in key or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise UnsafePathError(
            f"{location}: expected a relative path inside, got {key!r}; correct the path"
        )
    return key


def check_span(file: str, span: tuple[int, int], size: int | None = None) -> None:
    """Refuse a span (offset, length) that is not inside a file of `size` bytes; None: unknown.

    Raises:
        StoreError: the file ends before the span.
    """
    offset, length = span
    if offset < 0 or length < 0 or offset + length > (2**62 if size is None else size):
        there = "" if size is None else f" of {size} bytes"
        raise StoreError(
            f"{file}: expected {length} bytes at {offset}, found a file{there} that ends before; "
            "it is cut short or not what its record says; voxelize again or copy it again"
        )


def merge_spans(spans: Iterable[tuple[int, int]], gap: int = 0) -> list[tuple[int, int]]:
    """Return the union of spans [start, stop), ascending; those at most `gap` apart become one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a product: half written, or a lock."""
    return name.startswith(".") or name.endswith(".partial")


def too_large(file: str, size: int, limit: int) -> StoreError:
    """Return the error for a file that is larger than any that its reader expects."""
    return StoreError(
        f"{file}: expected at most {limit} bytes, found {size}; it is not what its name says: "
        "restore the file or voxelize again into another folder"
    )


def missing(file: str) -> StoreError:
    """Return the error for a file that its record promises and that isn't there."""
    return StoreError(
        f"{file}: expected a file, found none; copy the store again, or voxelize again"
    )
