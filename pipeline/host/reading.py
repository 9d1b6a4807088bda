"""Reading of files that may come from anybody: regular ones, of bounded size."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, Literal

StrPath = str | os.PathLike[str]
"""A path as text or as an object, such as `pathlib.Path`."""


def open_file(
    path: StrPath, mode: Literal["rb", "ab"] = "rb", *, buffered: bool = True
) -> IO[bytes]:
    """Return an open regular file; pipes and devices, on which one may wait for ever, are refused.

    Raises:
        OSError: there is no such file, or it is none.
    """
    file: IO[bytes] = open(path, mode, -1 if buffered else 0, opener=_without_waiting)  # noqa: SIM115
    kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
    if kind != stat.S_IFREG:
        file.close()
        name = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device"}.get(kind, "something else")
        raise OSError(errno.EINVAL, f"expected a regular file, found {name}", os.fspath(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    if flags & os.O_WRONLY:  # a pipe that nobody reads opens too, and is refused by its kind
        flags ^= os.O_WRONLY | os.O_RDWR
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def read_file(path: StrPath, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
        OSError: there is no such file, it is none, or it is larger.
    """
    with open_file(path, buffered=False) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(
                errno.EFBIG, f"expected at most {most} bytes, found {size}", os.fspath(path)
            )
        return file.read(most)


def read_start(path: StrPath, most: int) -> bytes:
    """Return at most the first `most` bytes of a regular file.

    Raises:
        OSError: there is no such file, or it is none.
    """
    with open_file(path) as file:
        return file.read(most)
