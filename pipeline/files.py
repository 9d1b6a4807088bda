"""Writing products so that a killed run never leaves half of one behind."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SpikeDeblurError


class UnsafePathError(SpikeDeblurError):
    """A path read from a file would leave the folder it must stay in."""


_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the name `path` only on success.

    Parent folders are made. The data is on disk before the name changes, so after a crash
    `path` is either what it was or the whole new file.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: image and array writers choose their format by it.
    aside = final.with_name(f".{final.stem}.{secrets.token_hex(6)}.partial{final.suffix}")
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(final)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            if error.errno is None:  # NumPy's: how many items it wrote
                raise OSError(errno.EIO, f"can't write all of it ({error})", str(final)) from error
            unnamed = error.filename is None and error.errno in _OF_WRITING
            if unnamed or error.filename in (aside, str(aside)):
                error.filename, error.filename2 = str(final), None  # the name that users know
        raise


_LEFT = re.compile(r"\..+\.[0-9a-f]{12}\.(partial(\.[^.]*)?|removed)")


def sweep(folder: Path, stem: str | None = None) -> None:
    """Remove what killed runs left half written or half removed directly in a folder.

    Args:
        folder: where nothing else writes now.
        stem: of the one file whose leftovers are meant; None: of all.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not _LEFT.fullmatch(path.name):
            continue
        if stem is not None and not path.name.startswith(f".{stem}."):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the hex SHA-256 of a file's content; memory does not grow with its size."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(root: Path, relative: str, named_in: str | os.PathLike[str]) -> Path:
    """Return `root / relative`, refusing a path that leaves `root`.

    Args:
        root: folder that the path must stay in.
        relative: a relative POSIX path, as read from a file.
        named_in: the file it was read from, for the message.

    Raises:
        UnsafePathError: `relative` is absolute, climbs with `..`, or follows a link out.
    """
    return Path(all_inside(root, [relative], named_in)[relative])


def all_inside(
    root: Path, relatives: Iterable[str], named_in: str | os.PathLike[str]
) -> dict[str, str]:
    """Return `root / relative` for many paths as `inside` does; each folder is resolved once."""
    real: dict[str, str] = {}
    found: dict[str, str] = {}
    top = os.path.realpath(root)
    for relative in relatives:
        parts = relative.split("/")
        if relative.startswith("/") or ".." in parts or "\x00" in relative or not any(parts):
            raise UnsafePathError(
                f"{named_in}: expected a relative path inside {root}, got {relative!r}; "
                "correct the path"
            )
        path = f"{root}/{relative}"
        folder, _, name = path.rpartition("/")
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        target = os.path.join(real[folder], name)  # noqa: PTH118
        if os.path.islink(target):  # noqa: PTH114
            target = os.path.realpath(target)
        if os.path.commonpath((top, target)) != top:
            raise UnsafePathError(
                f"{named_in}: {relative!r} is a link that leaves {root}; copy the data in instead"
            )
        found[relative] = path
    return found
