"""A storage in the file system."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..host.files import StrPath, atomic_write, path_aside, require_inside, sweep
from ..host.reading import open_file
from .base import (
    PIECE,
    READ_LIMIT,
    Buffer,
    Storage,
    StoreError,
    StoreWriteError,
    check_key,
    check_span,
    is_hidden,
    missing,
    too_large,
)


class Folder(Storage):
    """A storage in the file system; `location` is its absolute path."""

    is_local = True

    def child(self, key: str) -> Folder:
        """Return the folder below."""
        return Folder(self._path(key, may_be_top=True))

    def cached(self) -> Folder:
        """Return this storage; see `Storage`."""
        return self

    def read(self, key: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return a whole file, or None; see `Storage`."""
        path = self._path(key)
        with _explained(path, "read"):
            try:
                # Unbuffered: one read takes it all.
                with open_file(path, buffered=False) as file:
                    size = os.fstat(file.fileno()).st_size
                    if size > limit:
                        raise too_large(path, size, limit)
                    return file.read(size)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def stream(self, key: str) -> Iterator[bytes]:
        """Read a file piece by piece; see `Storage`."""
        path = self._path(key)
        # Not mapped: where the disk fails, reading a mapping would kill the process.
        with _explained(path, "read"):
            try:
                file = open_file(path, buffered=False)
            except (FileNotFoundError, NotADirectoryError):
                raise missing(path) from None
            with file:
                while piece := file.read(PIECE):
                    yield piece

    def write(self, key: str, parts: Iterable[Buffer], *, durable: bool = True) -> int:
        """Write a file aside, then rename it; see `Storage`."""
        path = self._path(key)
        require_inside(self.location, os.path.dirname(path))  # noqa: PTH120
        with _explained(path, "write"), atomic_write(path, durable=durable) as file:
            return sum(file.write(part) for part in parts)

    def size(self, key: str) -> int | None:
        """Return a file's size, or None; see `Storage`."""
        return self.sizes_of([key]).get(key)

    def sizes(self, key: str = "") -> dict[str, int]:
        """Return the size of every file below; see `Storage`."""
        sizes: dict[str, int] = {}
        todo = [key]
        while todo:
            folder = todo.pop()
            for entry in self._entries(folder):
                inside = f"{folder}/{entry.name}" if folder else entry.name
                with _explained(entry.path, "look at"):
                    if entry.is_dir():
                        todo.append(inside)
                    elif entry.is_file():
                        sizes[inside] = entry.stat().st_size
        return sizes

    def sizes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Look at each file by itself; see `Storage`."""
        sizes: dict[str, int] = {}
        for key in keys:
            path = self._path(key)
            with _explained(path, "look at"):
                try:
                    status = os.stat(path)  # noqa: PTH116  # thousands of times: a Path costs more than it
                except (FileNotFoundError, NotADirectoryError):
                    continue
            if stat.S_ISREG(status.st_mode):
                sizes[key] = status.st_size
        return sizes

    def folders(self, key: str = "") -> list[str]:
        """Return the names of the folders directly below; see `Storage`."""
        return sorted(entry.name for entry in self._entries(key) if entry.is_dir())

    def remove(self, key: str) -> None:
        """Rename aside, to a hidden name, then remove; see `Storage`."""
        path = Path(self._path(key, may_be_top=True))
        if key:
            require_inside(self.location, path.parent)
        aside = path_aside(path, "removed")
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
        """Remove hidden leftovers; see `Storage`."""
        path = Path(self._path(key, may_be_top=True))
        require_inside(self.location, path)
        with _explained(path, "clear"):
            sweep(path, own=own)

    def read_ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Read each span; see `Storage`."""
        path = self._path(key)
        with _explained(path, "read"):
            try:
                file = open_file(path, buffered=False)
            except (FileNotFoundError, NotADirectoryError):
                raise missing(path) from None
            with file:
                size = os.fstat(file.fileno()).st_size
                for span in spans:
                    check_span(path, span, size)
                return [os.pread(file.fileno(), length, offset) for offset, length in spans]

    def _path(self, key: str, *, may_be_top: bool = False) -> str:
        check_key(self.location, key, may_be_top=may_be_top)
        return f"{self.location.rstrip('/')}/{key}" if key else self.location

    def _entries(self, key: str) -> Iterator[os.DirEntry[str]]:
        path = self._path(key, may_be_top=True)
        with _explained(path, "list"):
            try:
                with os.scandir(path) as entries:
                    shown = [entry for entry in entries if not is_hidden(entry.name)]
            except (FileNotFoundError, NotADirectoryError):
                return
        yield from shown


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
def _explained(path: StrPath, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
        of_writing = verb in ("write", "remove", "clear")
        kind = StoreWriteError if of_writing else StoreError
        raise kind(f"{os.fspath(path)}: cannot {verb} it: {reason}; {remedy}") from error
