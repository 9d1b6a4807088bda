"""A spike stream in one file or in parts: several files, each of whole frames, one after another.

A stream's path is a file's, a folder's that holds the parts, or a pattern such as `rec_*.dat`.
Parts follow each other by the numbers in their names: `rec_2.dat` comes before `rec_10.dat`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..host.reading import open_file
from .between import Cut
from .counts import bin_edges, count_type
from .dat import SPIKE_SUFFIXES, SpikeFile, SpikeFileError
from .geometry import SpikeGeometry
from .packed import Bytes, Range, Region
from .stream import SpikeStream

_PATTERN = re.compile(r"[*?[]")
_PIECE_BYTES = 1 << 20


def require_stream(path: str | os.PathLike[str]) -> None:
    """Refuse a stream that isn't there, before anything else is missed of it.

    Raises:
        SpikeFileError: no such file, a folder without spike files, or a pattern that fits none.
    """
    if not stream_files(path)[0].exists():
        raise SpikeFileError(f"{path}: expected a spike file, found none; check the path")


def stream_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a stream in order of time; a path that names one file is returned alone.

    Raises:
        SpikeFileError: a folder without spike files, or a pattern that fits none.
    """
    path = Path(path)
    if path.is_dir():
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
        parts = [path / name for name in names if name.lower().endswith(SPIKE_SUFFIXES)]
        if not parts:
            raise SpikeFileError(
                f"{path}: expected a folder with the parts of a recording, such as rec_0.dat, "
                f"found no file that ends in {' or '.join(SPIKE_SUFFIXES)}; check the path"
            )
    elif not path.exists() and _PATTERN.search(path.name):
        parts = [found for found in path.parent.glob(path.name) if found.is_file()]
        if not parts:
            raise SpikeFileError(f"{path}: expected files of this pattern, found none; correct it")
        other = [part for part in parts if part.suffix.lower() not in SPIKE_SUFFIXES]
        if len(other) == len(parts):
            raise SpikeFileError(
                f"{other[0]}: expected a name that ends in {' or '.join(SPIKE_SUFFIXES)}; correct "
                f"the pattern {path.name}"
            )
        parts = [part for part in parts if part not in other]  # side files, for one
    else:
        return [path]
    return sorted(parts, key=lambda part: natural_order(part.name))


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return a key by which names sort by their numbers: `rec_2` before `rec_10`."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(p), "") if i % 2 else (0, 0, p) for i, p in enumerate(parts)]


def is_in_parts(path: str | os.PathLike[str]) -> bool:
    """Whether a stream's path names a folder or a pattern, not one file."""
    path = Path(path)
    return path.is_dir() or (not path.exists() and bool(_PATTERN.search(path.name)))


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file, or a folder or pattern with spike files."""
    try:
        return all(file.is_file() for file in stream_files(path))
    except SpikeFileError:
        return False


def hash_stream(path: str | os.PathLike[str]) -> str:
    """Return the hex SHA-256 of a stream's bytes, the same however it is cut into files."""
    digest = hashlib.sha256()
    for part in stream_files(path):
        with open_file(part) as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def hash_samples(stream: SpikeFile | SpikeParts, start: int, stop: int) -> str:
    """Return the hex SHA-256 of the bytes that hold samples [start, stop) of a stream."""
    digest = hashlib.sha256()
    for file, samples in stream.pieces(start, stop):
        first, end = file.place(*samples)
        with open_file(file.path) as opened:
            opened.seek(first)
            while piece := opened.read(min(_PIECE_BYTES, end - first)):
                digest.update(piece)
                first += len(piece)
    return digest.hexdigest()


def open_stream(
    path: str | os.PathLike[str], geometry: SpikeGeometry, cut: Cut | None = None
) -> SpikeFile | SpikeParts:
    """Open a stream in one file or in parts.

    Args:
        path: the stream.
        geometry: which bit is which pixel.
        cut: the part of the recording to which reading is confined; None: all of it.

    Raises:
        SpikeFileError: no files, or one that is no whole number of frames; names it.
        SpikeWindowError: no sample lies in the part.
    """
    if cut is not None and is_in_parts(path):
        return _open_cut(Path(path), geometry, cut)
    files = [SpikeFile.open(file, geometry, cut) for file in stream_files(path)]
    if geometry.bayer is not None:
        mean = np.average([file.shares for file in files], 0, [file.n_frames for file in files])
        files = [replace(file, shares=tuple(mean.tolist())) for file in files]
    return SpikeParts(Path(path), files) if is_in_parts(path) else files[0]


def _open_cut(path: Path, geometry: SpikeGeometry, cut: Cut) -> SpikeParts:
    """Open a part of a stream in several files, of which those outside are only measured."""
    names = stream_files(path)
    ends = list(itertools.accumulate(geometry.count_frames(name.stat().st_size) for name in names))
    start, stop = cut.samples(ends[-1], path)
    clock = cut.clock
    files: list[SpikeFile] = []
    for name, end in zip(names, ends, strict=True):
        frames = end - (ends[len(files) - 1] if files else 0)
        before = end - frames
        if before < stop and end > start:
            first = clock.first + before / clock.rate
            files.append(
                SpikeFile.open(name, geometry, Cut(cut.between, replace(clock, first=first)))
            )
        else:
            nothing = np.empty(0, np.uint8)
            files.append(SpikeFile(name, geometry, frames, "packed", nothing, span=(0, 0)))
    odd = next((file for file in files if file.encoding != "packed"), None)
    if odd is not None:
        raise SpikeFileError(
            f"{odd.path}: expected packed spikes, found one byte a pixel; join the parts by "
            "`spikedeblur convert` before a part of the recording is read"
        )
    if geometry.bayer is not None:
        read = [file for file in files if file.data.size]
        weights = [file.whole[1] - file.whole[0] for file in read]
        mean = np.average([file.shares for file in read], 0, weights)
        files = [replace(file, shares=tuple(mean.tolist())) for file in files]
    return SpikeParts(path, files, (start, stop))


class SpikeParts(SpikeStream):
    """A stream of several files, which reads as `SpikeFile` does.

    Args:
        path: the folder or pattern, for messages.
        files: the parts in order of time.
        span: samples [start, stop) that may be read; None: all.
    """

    def __init__(
        self, path: Path, files: list[SpikeFile], span: tuple[int, int] | None = None
    ) -> None:
        self.path = path
        self._span = span
        self.geometry = files[0].geometry
        self.encoding = files[0].encoding
        self._files = files
        self._ends = list(itertools.accumulate(file.n_frames for file in files))
        self.n_frames = self._ends[-1]

    @property
    def whole(self) -> tuple[int, int]:
        """Samples [start, stop) that may be read."""
        return self._span or (0, self.n_frames)

    def read(
        self,
        start: int = 0,
        stop: int | None = None,
        rows: Range = None,
        columns: Range = None,
    ) -> npt.NDArray[np.uint8]:
        """Decode samples [start, stop) of a crop, as `SpikeStream.read` says."""
        pieces = self.pieces(*self._checked_window(start, stop))
        return np.concatenate([file.read(*span, rows, columns) for file, span in pieces])

    def counts(
        self,
        bins: int,
        start: int = 0,
        stop: int | None = None,
        rows: Range = None,
        columns: Range = None,
        *,
        out: npt.NDArray[np.generic] | None = None,
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Count spikes of samples [start, stop) in temporal bins, as `SpikeStream.counts` says."""
        start, stop = self._checked_window(start, stop)
        pieces = list(self.pieces(start, stop))
        if len(pieces) == 1:
            file, span = pieces[0]
            return file.counts(bins, *span, rows, columns, out=out)
        counts = np.zeros(
            (bins, *Region.of(self.geometry, rows, columns).shape), count_type(stop - start, bins)
        )
        edges = start + bin_edges(stop - start, bins)
        for b, (first, last) in enumerate(itertools.pairwise(edges.tolist())):
            for file, span in self.pieces(first, last):
                counts[b] += file.counts(1, *span, rows, columns)[0]
        if out is not None:
            out[...] = counts
        return counts

    def packed(self, start: int, stop: int, out: Bytes) -> None:
        """Write samples [start, stop) packed row by row, as `SpikeStream.packed` says."""
        self._checked_window(start, stop)
        at = 0
        for file, (first, last) in self.pieces(start, stop):
            file.packed(first, last, out[at : at + last - first])
            at += last - first

    def pieces(self, start: int, stop: int) -> Iterator[tuple[SpikeFile, tuple[int, int]]]:
        """Yield the files that hold samples [start, stop), each with the samples of its own."""
        part = bisect_right(self._ends, start)
        while start < stop:
            file, end = self._files[part], self._ends[part]
            before = end - file.n_frames
            last = min(stop, end)
            yield file, (start - before, last - before)
            start, part = last, part + 1
