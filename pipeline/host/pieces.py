"""Hashes of files that are read in parts: of the whole, or of pieces of one length.

    plain      SHA-256 of the bytes
    in pieces  SHA-256 of the SHA-256 digests of all pieces, one after another

A file of more than `PLAIN_BYTES` is hashed in pieces, each by whoever reads it anyway, in any order
and by several processes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from .reading import StrPath, open_file

PIECE_BYTES = 2**20
"""Bytes of a piece; short, since a piece that two tasks need is read by both."""

PLAIN_BYTES = 2**26
"""Most bytes that are hashed as a whole."""


@dataclass(frozen=True, slots=True)
class HashForm:
    """How a file's hash is made."""

    piece: int | None = None
    """Bytes of a piece; None: the hash is plain."""
    part: tuple[int, int] | None = None
    """Bytes [start, stop) of the file that are hashed; None: all."""

    @classmethod
    def of_bytes(cls, size: int, part: tuple[int, int] | None = None) -> HashForm:
        """Return the form in which a file of `size` bytes, or a part of it, is hashed."""
        start, stop = part or (0, size)
        return cls(PIECE_BYTES if stop - start > PLAIN_BYTES else None, part)

    def spans(self, size: int) -> list[tuple[int, int]]:
        """Return bytes [start, stop) of each piece of a file of `size` bytes; plain: of one."""
        start, stop = self.part or (0, size)
        step = self.piece or max(1, stop - start)
        return [(a, min(a + step, stop)) for a in range(start, max(stop, start + 1), step)]

    def joined(self, digests: Iterable[str]) -> str:
        """Return the hash of the file from those of its pieces, in order, all in hex."""
        if self.piece is None:
            (digest,) = digests
            return digest
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


class PieceHasher:
    """Hash of a file whose bytes are handed over from its first on.

    Args:
        form: how the hash is made.
        at: place in the file of the first byte that is handed over.
    """

    def __init__(self, form: HashForm, at: int = 0) -> None:
        self._form, self._at = form, at
        self._digests: list[str] = []
        self._piece, self._left = hashlib.sha256(), form.piece

    def update(self, content: bytes) -> None:
        """Take the next bytes of the file; those outside the part don't count."""
        view, first = memoryview(content), self._at
        self._at += len(view)
        start, stop = self._form.part or (0, self._at)
        view = view[max(0, start - first) : max(0, stop - first)]
        while view:
            taken = view if self._left is None else view[: self._left]
            self._piece.update(taken)
            view = view[len(taken) :]
            if self._left is not None:
                self._left -= len(taken)
                if self._left == 0:
                    self._end_piece()

    def hexdigest(self) -> str:
        """Return the hash of what was handed over."""
        if self._form.piece is None:
            return self._piece.hexdigest()
        if self._left != self._form.piece:
            self._end_piece()
        return self._form.joined(self._digests)

    def _end_piece(self) -> None:
        self._digests.append(self._piece.hexdigest())
        self._piece, self._left = hashlib.sha256(), self._form.piece


def hash_bytes(path: StrPath, start: int, stop: int) -> str:
    """Return the hex SHA-256 of bytes [start, stop) of a file, which is read no further."""
    digest = hashlib.sha256()
    with open_file(path, buffered=False) as file:
        if hasattr(os, "posix_fadvise"):  # else the system reads megabytes beyond
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.seek(start)
        while start < stop and (content := file.read(min(PIECE_BYTES, stop - start))):
            digest.update(content)
            start += len(content)
    return digest.hexdigest()


def hash_file(path: StrPath, size: int, form: HashForm) -> str:
    """Return the hash of a file of `size` bytes, of which no more is read than it is made of."""
    return form.joined(hash_bytes(path, *span) for span in form.spans(size))
