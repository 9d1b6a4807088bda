"""CRC-32 of files, which a sequence's mark records and `check` compares.

It is computed from the bytes that are handed to the disk, so that a disk which writes other bytes
is found out. It is not CRC-32C, which ends a shard's index: every file that ends with its own
checksum has the same checksum.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from .base import Buffer, Storage


def checksum(parts: Iterable[Buffer]) -> str:
    """Return the CRC-32 of a file's parts as eight hex digits."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return f"{value:08x}"


class SummedFiles:
    """Files that are written to a storage, with the size and the checksum of each."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.sizes: dict[str, int] = {}
        """Size in bytes of each file written, by key."""
        self.crc32: dict[str, str] = {}
        """Checksum of each file written, by key."""

    def write(self, key: str, parts: Iterable[Buffer], *, durable: bool = True) -> None:
        """Write a file; see `Storage.write`."""
        value = 0

        def summed() -> Iterator[Buffer]:
            nonlocal value
            for part in parts:
                value = zlib.crc32(part, value)
                yield part

        self.sizes[key] = self._storage.write(key, summed(), durable=durable)
        self.crc32[key] = f"{value:08x}"


def content_checksum(content: Any) -> str:
    """Return the CRC-32 of a JSON value, however it is spaced or ordered."""
    return checksum([json.dumps(content, sort_keys=True).encode()])
