"""CRC-32 of files, which a sequence's mark records and `check` compares.

It is taken of the bytes as they are handed to the disk, not of what is read back: a disk that
writes something else is found out. Not CRC-32C, by which a shard's index ends: a file that ends
with its own checksum has the same whatever comes before it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from .base import Buffer


class Checksum:
    """Of what passes through; `str` gives it as eight hex digits."""

    def __init__(self) -> None:
        self._value = 0

    def __str__(self) -> str:
        return f"{self._value:08x}"

    def through(self, parts: Iterable[Buffer]) -> Iterator[Buffer]:
        """Yield the parts of a file unchanged."""
        for part in parts:
            self._value = zlib.crc32(part, self._value)
            yield part


def checksum(parts: Iterable[Buffer]) -> str:
    """Return the CRC-32 of a file's parts as eight hex digits."""
    found = Checksum()
    for _ in found.through(parts):
        pass
    return str(found)


def content_checksum(content: Any) -> str:
    """Return the CRC-32 of a JSON value, however it is spaced or ordered."""
    return checksum([json.dumps(content, sort_keys=True).encode()])
