"""Writing products so that a killed run never leaves half of one behind."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import SpikeDeblurError
from .reading import StrPath as StrPath
from .reading import open_file


class UnsafePathError(SpikeDeblurError):
    """A path read from a file would leave the folder it must stay in."""


_PIECE_BYTES = 1 << 20
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class AsideFile(io.BufferedWriter):
    """A new file under another name than its final one, which counts the bytes written to it.

    It has no descriptor on purpose. `ndarray.tofile`, `numpy.save` and Pillow's encoders write past
    Python to a descriptor, and lose the error of a disk that fills up with the last part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        """Where the bytes are until the file is whole; `flush` before it is read."""
        super().__init__(path.open("xb", buffering=0))
        self._end = 0

    def fileno(self) -> int:
        """Refuse: the file has no descriptor."""
        raise io.UnsupportedOperation("fileno")

    def write(self, data: Any, /) -> int:
        """Write all bytes of a contiguous buffer; returns how many."""
        written = super().write(data)
        self._end = max(self._end, self.tell())
        return written

    def abandon(self) -> None:
        """Close the file without another try to write what it still holds."""
        self.raw.close()

    def finish(self, *, durable: bool = True) -> None:
        """Close the file once all of it is there, and on disk if `durable`.

        Raises:
            OSError: the file is shorter than what was written to it.
        """
        if self.closed:
            return
        self.flush()
        descriptor = super().fileno()
        size = os.fstat(descriptor).st_size
        if size != self._end:
            raise OSError(
                errno.EIO, f"expected {self._end} bytes, found {size} written", str(self.path)
            )
        if durable:
            os.fsync(descriptor)
        self.close()


@contextmanager
def atomic_write(path: StrPath, *, durable: bool = True) -> Iterator[AsideFile]:
    """Yield a new file that takes the name `path` once it is whole; otherwise it is removed.

    Parent folders are made. If `durable`, the data is on disk before the name changes, so after a
    crash `path` is either what it was or the whole new file.

    Raises:
        OSError: not all of it could be written; names `path`, which is what it was.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = path_aside(final, "partial")
    try:
        file = AsideFile(aside)
        try:
            yield file
            file.finish(durable=durable)
        except BaseException:
            file.abandon()
            raise
        aside.replace(final)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            unnamed = error.filename is None and error.errno in _WRITE_ERRORS
            if unnamed or error.filename in (aside, str(aside)):
                error.filename = str(final)  # the name that users know
                if error.filename2 is not None:
                    del error.filename2  # if it is None, it is printed
        raise


def path_aside(path: Path, what: str) -> Path:
    """Return a new hidden name beside `path`, which `sweep` knows.

    It has no suffix of a product, so that nothing takes what is half there for one.

    Args:
        path: the product.
        what: partial, or removed.
    """
    return path.with_name(f".{shortened(path.name)}.{secrets.token_hex(6)}.{what}")


def shortened(name: str) -> str:
    """Return at most 200 bytes of a file's name, so that a name made of it stays below 256."""
    return os.fsdecode(os.fsencode(name)[:_LONGEST])


_LONGEST = 200
"""Most bytes of a file's name that the name of its half-written form keeps."""

_BEGAN = time.time()
"""Start of this process, in seconds since 1970; files from before are nobody's work in progress."""

_LEFT = re.compile(r"\..+\.[0-9a-f]{12}\.(partial(\.[^.]*)?|removed)")


def sweep(folder: Path, name: str | None = None, *, own: bool = False) -> None:
    """Remove files and folders that killed runs left half written or half removed in a folder.

    Those younger than this process stay: another one may be writing them.

    Args:
        folder: where they are; subfolders are not looked into.
        name: the file whose leftovers are removed; None: any file.
        own: remove younger ones too, because workers of this process left them.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not _LEFT.fullmatch(path.name):
            continue
        if name is not None and path.name.rpartition(".partial")[0][:-13] != f".{shortened(name)}":
            continue
        try:
            if not own and path.lstat().st_mtime >= _BEGAN:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            continue  # its writer has just finished


def write_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def sha256_file(path: StrPath) -> str:
    """Return the hex SHA-256 of a file's content; memory does not grow with its size."""
    with open_file(path) as file:
        digest = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
        return digest.hexdigest()


def require_inside(root: StrPath, folder: StrPath) -> None:
    """Refuse to write or remove in a folder that a link puts outside `root`.

    Raises:
        UnsafePathError: a link does; names both folders.
    """
    top, target = os.path.realpath(root), os.path.realpath(folder)
    if os.path.commonpath((top, target)) != top:
        raise UnsafePathError(
            f"{os.fspath(folder)}: is a link that leaves {os.fspath(root)}, to {target}, where "
            "nothing is written or removed; replace the link by a folder"
        )


def inside(
    root: Path, relative: str, named_in: StrPath, links: Mapping[str, str] | None = None
) -> Path:
    """Return `root / relative`, refusing a path that leaves `root` but by a recorded link.

    Args:
        root: folder that the path must stay in.
        relative: a relative POSIX path, as read from a file.
        named_in: the file it was read from, for the message.
        links: links that may be followed out; see `links_out`.

    Raises:
        UnsafePathError: `relative` is absolute, climbs with `..`, or follows another link out.
    """
    return Path(all_inside(root, [relative], named_in, links)[relative])


def links_out(root: Path, relatives: Iterable[str]) -> dict[str, str]:
    """Return the links by which paths below `root` leave it, and the absolute path of each target.

    They are what the user arranged: only for paths that were found by listing `root`.
    """
    top = os.path.realpath(root)
    links: dict[str, str] = {}
    known = {""}
    for relative in relatives:
        parts = relative.split("/")
        for i in range(1, len(parts) + 1):
            path = "/".join(parts[:i])
            if i < len(parts):
                if path in known:
                    continue
                known.add(path)
            if not os.path.islink(f"{root}/{path}"):  # noqa: PTH114  # a Path costs more
                continue
            target = os.path.realpath(f"{root}/{path}")
            if not any(_is_below(target, folder) for folder in (top, *links.values())):
                links[path] = target
    return links


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((folder, path)) == folder


def stays_below(relative: str) -> bool:
    """Whether a relative POSIX path leads below the folder it starts from, links apart."""
    # By hand: a manifest of X-TRAIN has 140,000 paths, and pathlib takes 10 us for each.
    parts = relative.split("/")
    climbs = relative.startswith("/") or ".." in parts or "\x00" in relative
    return not climbs and not set(parts) <= {"", "."}


def all_inside(
    root: Path,
    relatives: Iterable[str],
    named_in: StrPath,
    links: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return `root / relative` for many paths as `inside` does; each folder is resolved once."""
    paths: dict[str, str] = {}
    known: set[str] = set()
    top = os.path.realpath(root)
    links = links or {}
    moved = {
        link: os.path.realpath(f"{root}/{link}")
        for link, target in links.items()
        if os.path.realpath(f"{root}/{link}") != target
    }
    tops = (top, *(target for link, target in links.items() if link not in moved))

    def require_below(path: str, relative: str) -> None:
        real = os.path.realpath(path)
        if any(_is_below(real, folder) for folder in tops):
            return
        for link, found in moved.items():
            if relative == link or relative.startswith(f"{link}/"):
                raise UnsafePathError(
                    f"{named_in}: the link {link!r} led to {links[link]} when it was aligned, and "
                    f"leads to {found} now; put it back, or run `spikedeblur align` again"
                )
        raise UnsafePathError(
            f"{named_in}: {relative!r} is a link that leaves {root}; copy the data in, or run "
            "`spikedeblur align` again, which records links"
        )

    for relative in relatives:
        if not stays_below(relative):
            raise UnsafePathError(
                f"{named_in}: expected a relative path inside {root}, got {relative!r}; "
                "correct the path"
            )
        path = f"{root}/{relative}"
        folder = path.rpartition("/")[0]
        if folder not in known:
            require_below(folder, relative)
            known.add(folder)
        if os.path.islink(path):  # noqa: PTH114  # a Path costs more than looking
            require_below(path, relative)
        paths[relative] = path
    return paths
