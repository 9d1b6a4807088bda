"""Files of a store that a run has compared with their checksums."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import RawArray
from multiprocessing.context import get_spawning_popen
from typing import Any

from ..storage.base import Storage, StoreError
from ..storage.checksum import checksum
from ..store.arrays import DAMAGED


class Verified:
    """One flag a file, so that each is compared once in a run.

    Processes that this one starts, spawned or forked, have the same flags; a copy that reaches a
    process in another way begins with flags of its own.
    """

    def __init__(self, files: int) -> None:
        self._flags = RawArray("B", max(files, 1))

    def __reduce__(self) -> tuple[Callable[..., Verified], tuple[Any, ...]]:
        if get_spawning_popen() is None:
            return Verified, (len(self._flags),)
        return _sharing, (self._flags,)

    def require(self, number: int, storage: Storage, key: str, expected: str) -> None:
        """Compare a file with its CRC-32, unless the run has done it.

        Args:
            number: its flag.
            storage: where it is.
            key: the file.
            expected: CRC-32 that its sequence's mark holds, in hex.

        Raises:
            StoreError: it is another file than was written, or can't be read.
        """
        if self._flags[number]:
            return
        found = checksum(storage.stream(key))
        if found != expected:
            raise StoreError(
                f"{storage}: {key}: expected CRC-32 {expected}, found {found}; {DAMAGED}"
            )
        self._flags[number] = 1


def _sharing(flags: Any) -> Verified:
    verified = Verified.__new__(Verified)
    verified._flags = flags
    return verified
