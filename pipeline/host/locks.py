"""One writer at a time of a folder or a file, by a lock that ends with the process that holds it.

The system forgets a `flock` when its process is gone, killed or not, so no lock is ever stale: the
file may stay, and means nothing by itself. Through NFS the server holds the lock, and forgets it
some time after a client's machine vanished (90 s by default).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ...errors import SpikeDeblurError
from .files import shortened
from .reading import StrPath, open_file

LOCK = ".lock"
"""Name of the lock's file in a folder."""

_NO_LOCKS_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

_logger = logging.getLogger(__name__)


class HeldError(SpikeDeblurError):
    """Another process is writing to the folder or file."""


@contextmanager
def only_writer(folder: Path, message: str) -> Iterator[None]:
    """Hold a folder for writing; it is made if it isn't there.

    The lock is a file in the folder, so it holds under every name by which the folder is reached.
    Where the file system knows no locks (Lustre mounted without `flock`), a warning says so, and
    nothing is held.

    Args:
        folder: the folder to write to.
        message: text of the error.

    Raises:
        HeldError: another process holds the folder.
    """
    with _held(folder / LOCK, message):
        yield


@contextmanager
def only_writer_of(file: StrPath) -> Iterator[None]:
    """Hold a file for writing, from the first look at it until it is written; see `only_writer`.

    Raises:
        HeldError: another process holds the file.
    """
    path = Path(file)
    message = f"{path}: another `spikedeblur` is writing it; wait for it, or stop it"
    with _held(path.with_name(f".{shortened(path.name)}{LOCK}"), message):
        yield


@contextmanager
def _held(path: Path, message: str) -> Iterator[None]:
    folder = path.parent
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with _opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HeldError(message) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise
                _logger.warning(
                    "%s: this file system knows no locks (%s); see to it that nothing else "
                    "writes there",
                    folder,
                    error.strerror,
                )
            try:
                if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue  # a holder that has just finished took the name away
            except FileNotFoundError:
                continue
            try:
                yield
            finally:
                with suppress(PermissionError):  # another user's, where folders are shared
                    path.unlink(missing_ok=True)
                with suppress(OSError):  # something is in it
                    for one in made:
                        one.rmdir()
            return


def _opened(path: Path) -> IO[bytes]:
    """Open a lock's file; one that another user's process left is locked as well."""
    try:
        return open_file(path, "ab")  # NFS locks only what is open for writing
    except OSError as error:
        if isinstance(error, PermissionError) and path.exists():
            try:
                return open_file(path)
            except PermissionError:
                raise HeldError(
                    f"{path}: belongs to another user, so that nobody else can tell whether "
                    "it is held; remove it once nothing of that user's writes there"
                ) from error
        if error.errno == errno.EINVAL:
            raise HeldError(f"{path}: {error.strerror}; remove it") from error
        error.filename = str(path.parent)  # users don't know the lock's own file
        raise


def end_with_parent() -> None:
    """Have this process of `multiprocessing` end with its parent, even if the parent is killed.

    A pool's processes would wait for work for ever, or still write beside the processes of a
    resumed run.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    # Ctrl-C reaches the whole group of processes; whoever started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True, name="end with parent").start()
