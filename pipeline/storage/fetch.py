"""Files of a storage, copied into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ..host.files import atomic_write
from .base import Storage, check_key
from .side_by_side import together


def fetch(storage: Storage, keys: Iterable[str], folder: Path) -> None:
    """Copy files from a storage into a folder, several at once.

    Raises:
        StoreError: one is missing or can't be read.
        UnsafePathError: a key would leave the folder.
    """

    def copy(key: str) -> None:
        with atomic_write(folder / check_key(str(storage), key)) as file:
            for piece in storage.stream(key):
                file.write(piece)

    together([partial(copy, key) for key in keys])
