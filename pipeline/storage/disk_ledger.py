"""Space that a disk cache takes, written down for all its processes; see `disk_cache.py`."""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
import psutil

FOLDERS = 4096
"""Folders that entries are spread over, by the first three digits of their names."""

PAGE = 4096
"""Bytes by which files take space on disks."""

HALF = ".new"
"""End of the name of an entry that is being written."""

_NAME = re.compile(r"[0-9a-f]{32}(\.new)?")
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags by which a file is opened: no link is followed, and nothing waits."""

_LEDGER = struct.Struct("<36sI")  # boot, CRC-32C of boot and sizes


class Entry(NamedTuple):
    """One file of a folder, for the order in which they leave."""

    used: float
    """Time of the last use that was noted."""
    size: int
    folder: int
    name: str


class Ledger:
    """Space that each folder takes, at least, in bytes; for the process that holds its lock."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._boot = _boot()
        self.sizes = np.zeros(FOLDERS, np.int64)
        content = os.pread(descriptor, _LEDGER.size + self.sizes.nbytes + 1, 0)
        head, body = content[: _LEDGER.size], content[_LEDGER.size :]
        if len(body) == self.sizes.nbytes and head == ledger_head(head[:36], body):
            self._boot = head[:36]
            self.sizes[:] = np.frombuffer(body, np.int64)
        else:
            self._count_all_anew()

    def require_this_boot(self) -> None:
        """Count anew what was counted before the machine was started, or on another one."""
        if self._boot != _boot():
            self._boot = _boot()
            self._count_all_anew()

    def _count_all_anew(self) -> None:
        for number in range(FOLDERS):
            self.count_anew(number)
        self.write()

    @property
    def total(self) -> int:
        """Bytes of all folders."""
        return int(self.sizes.sum())

    def add(self, number: int, size: int) -> None:
        """Note that a folder takes `size` bytes more."""
        self.sizes[number] += size
        self.write()

    def write(self) -> None:
        """Write the sizes; a kill in the middle leaves what is seen to be torn."""
        body = self.sizes.tobytes()
        os.pwrite(self._descriptor, ledger_head(self._boot, body) + body, 0)

    def count_anew(self, number: int) -> list[Entry]:
        """Return the entries of a folder and correct its size; half entries are removed."""
        found: list[Entry] = []
        with opened_folder(self._folder, number) as folder:
            if folder is not None:
                with os.scandir(folder) as listed:
                    names = [entry for entry in listed if _NAME.fullmatch(entry.name)]
                for entry in names:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # a reader saw that it was damaged
                    if stat.S_ISDIR(status.st_mode):
                        continue
                    if entry.name.endswith(HALF) or not stat.S_ISREG(status.st_mode):
                        with suppress(FileNotFoundError):
                            os.unlink(entry.name, dir_fd=folder)
                        continue
                    size = pages(status.st_size)
                    found.append(Entry(status.st_mtime, size, number, entry.name))
        self.sizes[number] = sum(entry.size for entry in found)
        return found


def ledger_head(boot: bytes, body: bytes) -> bytes:
    """Return what stands before the sizes: the boot, and a checksum of both."""
    return _LEDGER.pack(boot, google_crc32c.value(boot + body))


@functools.lru_cache(1)
def _boot() -> bytes:
    """Return 36 bytes that name this start of the machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        boot = f"{psutil.boot_time():.0f}".encode()
    return boot[:36].ljust(36)


def pages(size: int) -> int:
    """Return the space that a file of `size` bytes takes, in bytes."""
    return -(-size // PAGE) * PAGE


@contextmanager
def opened_folder(above: Path, number: int, *, make: bool = False) -> Iterator[int | None]:
    """Open a folder of entries; None: there is none, or a link or something else in its place."""
    path = above / f"{number:03x}"
    if make:
        with suppress(FileExistsError):
            path.mkdir(0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | SAFELY)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
