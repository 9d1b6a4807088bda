"""Disk cache of what was read from buckets, shared by the processes and runs of a machine.

    ledger     bytes of each folder's files, after the boot and a checksum; locked while one writes
    000 ... fff/
        HASH      an entry: hash, checksum, content
        HASH.new  half an entry, of a killed process

An entry is a part of one version of one object: its name is the hash of URL, entity tag and span.
Its space is counted in the ledger before the file is made, and the file takes its name once it is
whole, so that the limit holds and nothing is torn whenever a process is killed. Whoever finds the
ledger locked keeps nothing meanwhile; whoever finds it torn, or at the start of an earlier boot,
after which it may be too low, counts anew.

Training reads all of a store once before any of it twice. Were each new part kept, the least
recently used one, which is dropped for it, would be the next to be read. So a full cache takes
one part in `ADMIT` that comes, and drops the least recently used entries of some folders for it,
with all that were not used for a day, such as those of a store that nothing reads any more.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import logging
import os
import random
import stat
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import google_crc32c
import numpy as np

from ..host.machine import MachineError, size_from_environment
from .base import Buffer, StoreError
from .disk_ledger import HALF, PAGE, SAFELY, Entry, Ledger, opened_folder, pages
from .traffic import TRAFFIC

LIMIT = "SPIKEDEBLUR_CACHE"
"""Environment variable: size of the disk cache, such as 100GB; not set, or 0: there is none."""

FOLDER = "SPIKEDEBLUR_CACHE_FOLDER"
"""Environment variable: its folder; not set: `$XDG_CACHE_HOME/spikedeblur/buckets`."""

SMALLEST = 2**20
"""Bytes of the smallest disk cache, since less is a unit forgotten."""

ADMIT = 32
"""Parts that come for each one that a full cache takes."""

SAMPLED = 64
"""Least number of entries of which the least recently used are dropped."""

STALE = 24 * 3600.0
"""Seconds without use after which an entry is dropped when it is seen."""

SPARE = 2**30
"""Bytes of the disk that stay free, or a twentieth of it if that is less."""

_NOTICED = 60.0  # seconds between the uses of an entry that are noted
_PATIENCE = 1.0  # seconds to wait for the ledger, which a stopped process may hold
_PAUSE = 60.0  # seconds in which nothing is kept after that
_HEAD = struct.Struct("<16sI")  # hash, CRC-32C of hash and content

_chance = random.SystemRandom()  # a program's own seed is left alone
_logger = logging.getLogger(__name__)


def disk_cache() -> DiskCache | None:
    """Return this process's disk cache, or None where the user asks for none.

    Raises:
        MachineError: the environment names no size, or one below `SMALLEST`.
    """
    limit = size_from_environment(LIMIT, "100GB")
    if not limit:
        return None
    if limit < SMALLEST:
        raise MachineError(
            f"{LIMIT}: expected 0 or at least {SMALLEST} bytes, found {limit}; give the unit, "
            "such as 100GB"
        )
    folder, home = os.environ.get(FOLDER), os.environ.get("XDG_CACHE_HOME", "")
    if not folder:
        above = Path(home) if home.startswith("/") else Path.home() / ".cache"
        folder = str(above / "spikedeblur" / "buckets")
    return _opened(os.path.abspath(folder), limit)  # noqa: PTH100  # it keeps links


@functools.lru_cache(4)
def _opened(folder: str, limit: int) -> DiskCache:
    return DiskCache(Path(folder), limit)


def turn_off(trouble: str) -> None:
    """Have this process's disk cache take nothing more, since another process met trouble."""
    cache = disk_cache()
    if cache is not None:
        cache.turn_off(trouble)


class DiskCache:
    """Parts of objects in a folder; threads and processes may share it.

    Args:
        folder: where it is; of this user alone.
        limit: most bytes of its files, in whole pages.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._is_prepared = self._is_off = False
        self._pause_ends = 0.0
        self._lock, self._writing = threading.Lock(), threading.Lock()

    def prepare(self) -> None:
        """Make the folder, or shrink what is there to the limit; once in a process.

        Raises:
            StoreError: the folder can't be used, or its disk is full.
        """
        with self._lock:
            if self._is_prepared:
                return
            try:
                self.folder.mkdir(0o700, parents=True, exist_ok=True)
                found = self.folder.stat()
                if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                    raise StoreError(
                        f"{self.folder}: expected a folder of this user that nobody else may "
                        f"write to, for {LIMIT}; correct its rights, or choose another by {FOLDER}"
                    )
                with self._held(patience=5.0) as ledger:
                    if ledger:
                        ledger.require_this_boot()
                        self._make_room(ledger, 0)
                        self._require_space(PAGE)
                        ledger.write()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise StoreError(
                    f"{self.folder}: the disk cache can't be used: {reason}; choose another folder "
                    f"by {FOLDER}, or a smaller {LIMIT} (0: none)"
                ) from error
            self._is_prepared = True

    @staticmethod
    def name(url: str, version: str, part: str) -> str:
        """Return the name of the entry for a part of a version of an object."""
        text = "\0".join(("1", url, version, part))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def get(self, name: str, length: int | None = None, limit: int = 2**62) -> bytes | None:
        """Return the content of an entry, or None where there is none.

        Args:
            name: the entry.
            length: bytes that it must have; None: any number.
            limit: most bytes that it may have.
        """
        path = f"{self.folder}/{name[:3]}/{name}"
        try:
            descriptor = os.open(path, os.O_RDONLY | SAFELY)
        except OSError as error:
            if error.errno == errno.ELOOP:
                _discard(path)
            return None
        try:
            found = os.fstat(descriptor)
            size = found.st_size - _HEAD.size
            fits = 0 <= size <= limit if length is None else size == length
            is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            head = os.read(descriptor, _HEAD.size) if is_ours and fits else b""
            content = os.read(descriptor, size) if head else b""
            if not head or _head(name, content) != head:
                _discard(path)
                return None
            if time.time() - found.st_mtime > _NOTICED:
                with suppress(OSError):  # a disk that was made read-only still serves
                    os.utime(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return content

    def put(self, parts: Mapping[str, Buffer]) -> None:
        """Keep parts by the names of their entries, as far as there is room."""
        if self._is_off or time.monotonic() < self._pause_ends:
            return
        try:
            with self._held(patience=_PATIENCE) as ledger:
                if ledger is None:
                    self._pause_ends = time.monotonic() + _PAUSE
                    return
                for name, content in parts.items():
                    self._put(ledger, name, bytes(content))
        except OSError as error:
            self.turn_off(
                f"{self.folder}: {(error.strerror or str(error)).lower()}; the disk cache takes "
                f"nothing more, and reading goes on from the bucket ({LIMIT}, {FOLDER})"
            )

    def turn_off(self, reason: str) -> None:
        """Take nothing more in this process, and say why, once."""
        with self._lock:
            if self._is_off:
                return
            self._is_off = True
        if TRAFFIC.is_handed_on:
            TRAFFIC.count(trouble=reason)
        else:
            _logger.warning("%s", reason)

    def _put(self, ledger: Ledger, name: str, content: bytes) -> None:
        size = pages(_HEAD.size + len(content))
        number = int(name[:3], 16)
        if not content or size > self.limit:
            return
        with opened_folder(self.folder, number, make=True) as folder:
            if folder is None or _is_there(name, folder):  # from another process
                return
            if ledger.total + size > self.limit:
                if _chance.random() * ADMIT >= 1:
                    return
                self._make_room(ledger, size)
            self._require_space(size)
            ledger.add(number, size)
            half = f"{name}{HALF}"
            with suppress(FileNotFoundError):
                os.unlink(half, dir_fd=folder)
            try:
                _write_new(half, folder, _head(name, content), content)
                os.rename(half, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with suppress(FileNotFoundError):
                    os.unlink(half, dir_fd=folder)
                ledger.add(number, -size)
                raise

    def _make_room(self, ledger: Ledger, size: int) -> None:
        """Drop what was not used for long, until `size` bytes more are within the limit."""
        while ledger.total + size > self.limit:
            entries: list[Entry] = []
            folders = np.flatnonzero(ledger.sizes).tolist()
            _chance.shuffle(folders)
            for number in folders:
                entries += ledger.count_anew(number)
                if len(entries) >= SAMPLED:
                    break
            stale_before = time.time() - STALE
            for place, entry in enumerate(sorted(entries)):
                enough = ledger.total + size <= self.limit or place > len(entries) // 4
                if enough and entry.used > stale_before:
                    break
                with opened_folder(self.folder, entry.folder) as folder:
                    if folder is not None:
                        with suppress(FileNotFoundError):
                            os.unlink(entry.name, dir_fd=folder)
                        ledger.sizes[entry.folder] -= entry.size
            ledger.write()

    def _require_space(self, size: int) -> None:
        disk = os.statvfs(self.folder)
        spare = min(SPARE, disk.f_blocks * disk.f_frsize // 20)
        if disk.f_blocks and disk.f_bavail * disk.f_frsize - size < spare:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    @contextmanager
    def _held(self, patience: float) -> Iterator[Ledger | None]:
        """Hold the ledger; None: others held it for `patience` seconds."""
        end = time.monotonic() + patience
        if not self._writing.acquire(timeout=patience):
            yield None
            return
        try:
            descriptor = os.open(self.folder / "ledger", os.O_RDWR | os.O_CREAT | SAFELY, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "its ledger is no regular file")
                while not _locks(descriptor):
                    if time.monotonic() > end:
                        yield None
                        return
                    time.sleep(0.001)
                yield Ledger(self.folder, descriptor)
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that is being started has it too
                os.close(descriptor)
        finally:
            self._writing.release()


def _head(name: str, content: bytes) -> bytes:
    key = bytes.fromhex(name)
    return _HEAD.pack(key, google_crc32c.extend(google_crc32c.value(key), content))


def _discard(path: str) -> None:
    """Remove an entry that is not what was written."""
    _logger.debug("%s: not what was written; it is fetched again", path)
    with suppress(OSError):
        Path(path).unlink()


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write_new(name: str, folder: int, *parts: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
