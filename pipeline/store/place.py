"""Where a store's files lie: a local folder, or a bucket of an object store (`bucket.py`).

The rest of the package writes and reads through `Place` and does not know which it is. Keys are
relative POSIX paths inside the place; '' is its top.

Neither kind tells a reader that a file was replaced while it reads: products are immutable once
they are marked complete.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ..files import UnsafePathError, atomic_write, require_inside, sweep
from .schema import StoreError, StoreWriteError

Buffer = bytes | memoryview

READ_LIMIT = 256 * 2**20
"""Bytes: what `read` takes whole into memory unless told otherwise. Metadata is far smaller."""

PIECE = 8 * 2**20
"""Bytes: what `stream` reads at once."""

MAPPED_FILES = 200
"""Files that a process keeps mapped. Each holds a descriptor, of which macOS grants 256."""


class Place(Protocol):
    """Where files lie. It pickles as its location; connections are made where they are used.

    Every failure is a `StoreError` that names the location; a key that would leave the place is
    an `UnsafePathError`.
    """

    @property
    def location(self) -> str:
        """What messages call it, and what `open_place` takes: a URL or an absolute path."""

    @property
    def is_local(self) -> bool:
        """True if `location` is a folder's path."""

    def child(self, key: str) -> Place:
        """Return the place below this one."""

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
        """Return the size in bytes of every file below `key`, by key relative to this place.

        What is hidden or half written below `key` is left out. Nothing there: empty.
        """

    def sizes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the sizes in bytes of those of these files that are there."""

    def folders(self, key: str = "") -> list[str]:
        """Return the names of the folders directly below `key`, sorted, hidden ones left out."""

    def remove(self, key: str) -> None:
        """Remove the file `key` and everything below; what isn't there is no error.

        A removal that is cut short leaves nothing that can be taken for whole.
        """

    def sweep(self, key: str = "", *, own: bool = False) -> None:
        """Remove what a killed run left half written or half removed directly in `key`.

        What is younger than this process stays, unless workers of its own left it.
        """

    def ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Return the bytes of a file at each (offset, length).

        Raises:
            StoreError: there is no such file, or a span is not inside it.
        """


def open_place(location: str | os.PathLike[str]) -> Place:
    """Return the place at a folder's path or at a URL: s3://, gs://, az:// or file://.

    Nothing is looked at yet, so nothing need be there.

    Raises:
        StoreError: it is no such location, or what its kind needs is not installed.
    """
    text = os.fspath(location)
    scheme, colon, rest = text.partition("://")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return Folder(os.path.abspath(text))  # noqa: PTH100  # it keeps links
    if scheme.lower() == "file":
        url = urlsplit(text)
        if url.netloc not in ("", "localhost") or not url.path.startswith("/"):
            raise StoreError(f"{text}: expected file:/// and an absolute path; correct it")
        return Folder(os.path.abspath(unquote(url.path)))  # noqa: PTH100
    from .bucket import SCHEMES, Bucket

    if scheme.lower() not in SCHEMES:
        raise StoreError(
            f"{text}: expected a folder, or a URL that begins with file://, "
            f"{', '.join(f'{known}://' for known in SCHEMES)}; correct it"
        )
    bucket, _, prefix = rest.partition("/")
    return Bucket(scheme.lower(), bucket, prefix.strip("/"))


def check_key(location: str, key: str, *, may_be_top: bool = False) -> str:
    """Return the key.

    Raises:
        UnsafePathError: it is not a plain relative path inside the place.
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
    """Refuse a span that is not inside a file; size None: unknown.

    Raises:
        StoreError: it is not.
    """
    offset, length = span
    if offset < 0 or length < 0 or offset + length > (2**62 if size is None else size):
        there = "" if size is None else f" of {size} bytes"
        raise StoreError(
            f"{file}: expected {length} bytes at {offset}, found a file{there} that ends before; "
            "it is cut short or not what its record says: voxelize again or copy it again"
        )


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a product: aside, removed, a lock."""
    return name.startswith(".") or name.endswith(".partial")


class Folder:
    """A place in the file system."""

    is_local: bool = True

    def __init__(self, location: str) -> None:
        self._location = location

    def __str__(self) -> str:
        return self._location

    def __repr__(self) -> str:
        return f"Folder({self._location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and other._location == self._location

    def __hash__(self) -> int:
        return hash(self._location)

    @property
    def location(self) -> str:
        """Its absolute path."""
        return self._location

    def child(self, key: str) -> Folder:
        """Return the folder below."""
        return Folder(self._path(key, may_be_top=True))

    def read(self, key: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return a whole file, or None; see `Place`."""
        path = self._path(key)
        with _explained(path, "read"):
            try:
                # Unbuffered: one read takes it all.
                with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # half the time
                    size = os.fstat(file.fileno()).st_size
                    if size > limit:
                        raise too_large(path, size, limit)
                    return file.read()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def stream(self, key: str) -> Iterator[bytes]:
        """Read a file piece by piece; see `Place`."""
        path = self._path(key)
        # Not mapped: where the disk fails, reading a mapping would kill the process.
        with _explained(path, "read"):
            try:
                file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115
            except (FileNotFoundError, NotADirectoryError):
                raise missing(path) from None
            with file:
                while piece := file.read(PIECE):
                    yield piece

    def write(self, key: str, parts: Iterable[Buffer], *, durable: bool = True) -> int:
        """Write a file aside, then rename it; see `Place`."""
        path = self._path(key)
        require_inside(self._location, os.path.dirname(path))  # noqa: PTH120  # see _mapped
        with _explained(path, "write"), atomic_write(path, durable=durable) as file:
            return sum(file.write(part) for part in parts)

    def size(self, key: str) -> int | None:
        """Return a file's size, or None; see `Place`."""
        path = Path(self._path(key))
        with _explained(path, "look at"):
            try:
                return path.stat().st_size if path.is_file() else None
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sizes(self, key: str = "") -> dict[str, int]:
        """Return the size of every file below; see `Place`."""
        found: dict[str, int] = {}
        todo = [key]
        while todo:
            here = todo.pop()
            for entry in self._entries(here):
                inside = f"{here}/{entry.name}" if here else entry.name
                with _explained(entry.path, "look at"):
                    if entry.is_dir():
                        todo.append(inside)
                    elif entry.is_file():
                        found[inside] = entry.stat().st_size
        return found

    def sizes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Look at each file by itself; see `Place`."""
        found: dict[str, int] = {}
        for key in keys:
            path = self._path(key)
            with _explained(path, "look at"):
                try:
                    status = os.stat(path)  # noqa: PTH116  # thousands of times: see _mapped
                except (FileNotFoundError, NotADirectoryError):
                    continue
            if stat.S_ISREG(status.st_mode):
                found[key] = status.st_size
        return found

    def folders(self, key: str = "") -> list[str]:
        """Return the names of the folders directly below; see `Place`."""
        return sorted(entry.name for entry in self._entries(key) if entry.is_dir())

    def remove(self, key: str) -> None:
        """Rename aside, to a hidden name, then remove; see `Place`."""
        path = Path(self._path(key, may_be_top=True))
        if key:
            require_inside(self._location, path.parent)
        aside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.removed")
        with _explained(path, "remove"):
            try:
                path.replace(aside)
            except (FileNotFoundError, NotADirectoryError):
                return
            if aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside)
            else:
                aside.unlink()

    def sweep(self, key: str = "", *, own: bool = False) -> None:
        """Remove hidden leftovers; see `Place`."""
        path = Path(self._path(key, may_be_top=True))
        require_inside(self._location, path)
        with _explained(path, "clear"):
            sweep(path, own=own)

    def ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Return views of the mapped file, without copying; see `Place`."""
        path = self._path(key)
        with _explained(path, "read"):
            view = _mapped(path)
        size = len(view)
        for span in spans:
            check_span(path, span, size)
        return [view[offset : offset + length] for offset, length in spans]

    def _path(self, key: str, *, may_be_top: bool = False) -> str:
        check_key(self._location, key, may_be_top=may_be_top)
        return f"{self._location.rstrip('/')}/{key}" if key else self._location

    def _entries(self, key: str) -> Iterator[os.DirEntry[str]]:
        path = self._path(key, may_be_top=True)
        with _explained(path, "list"):
            try:
                with os.scandir(path) as entries:
                    found = [entry for entry in entries if not is_hidden(entry.name)]
            except (FileNotFoundError, NotADirectoryError):
                return
        yield from found


def too_large(file: str, size: int, limit: int) -> StoreError:
    """Return the error for a file that is larger than its reader can want."""
    return StoreError(
        f"{file}: expected at most {limit} bytes, found {size}; it is not what its name says: "
        "restore the file or voxelize again into another folder"
    )


class _ReplacedError(Exception):
    """The file became another one between two looks at it."""


def _mapped(path: str) -> memoryview:
    for _ in range(10):
        try:
            now = os.stat(path)  # noqa: PTH116  # each read does this: a Path costs more than it
        except (FileNotFoundError, NotADirectoryError):
            break
        try:
            return _map(path, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
        except (_ReplacedError, FileNotFoundError):
            continue
    raise missing(path)


@functools.lru_cache(MAPPED_FILES)
def _map(path: str, *identity: int) -> memoryview:
    """Map this very file. One that falls out of the cache stays mapped while views of it live."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        now = os.fstat(file.fileno())
        if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != identity:
            raise _ReplacedError
        if now.st_size == 0:
            return memoryview(b"")  # which can't be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def missing(file: str) -> StoreError:
    """Return the error for a file that its record promises and that isn't there."""
    return StoreError(
        f"{file}: expected a file, found none; copy the store again, or voxelize again"
    )


_REMEDIES = {
    errno.ENOSPC: "make room, then run again",
    errno.EDQUOT: "make room, then run again",
    errno.EACCES: "give the right to do so, or choose another place",
    errno.EPERM: "give the right to do so, or choose another place",
    errno.EROFS: "choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter path",
}


@contextmanager
def _explained(path: str | os.PathLike[str], verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
        of_writing = verb in ("write", "remove", "clear")
        kind = StoreWriteError if of_writing else StoreError
        raise kind(f"{os.fspath(path)}: cannot {verb} it: {reason}; {remedy}") from error
