"""Spikes spread over the intervals between them, in NumPy; `intervals` says what light is.

Letters in shapes: n samples, K bins, P pieces, m pixels. A piece is at most `_DEEPEST` samples of
one bin, or of those before or after all bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Distances = npt.NDArray[np.unsignedinteger]
Pixels = npt.NDArray[np.intp]

_DEEPEST = 32
"""Less than 128, so that a signed byte holds a place in a piece, or -1."""

_PLACES = np.arange(_DEEPEST, dtype=np.uint8)[:, None]


class Spreader:
    """Finds the light of m pixels at a time, in buffers that are made once.

    Args:
        n: samples of the stream.
        edges: (K + 1,) samples at which the bins start, and the last one's end.
        pixels: m; few enough for a core's cache.
    """

    def __init__(self, n: int, edges: npt.NDArray[np.int64], pixels: int) -> None:
        self.pixels = pixels
        self._edges: list[int] = edges.tolist()
        self._bins = len(edges) - 1
        self._pieces = list(pieces_of(n, self._edges))
        self._silent, self._marked = (np.empty((_DEEPEST, pixels), np.uint8) for _ in range(2))
        self._counts = np.empty((len(self._pieces), pixels), np.uint8)
        self._firsts = np.empty_like(self._counts)
        self._last = np.empty(pixels, np.uint8)
        signed, unsigned = (np.int16, np.uint16) if n < 2**15 else (np.int32, np.uint32)
        self._none = np.iinfo(signed).max + 1
        """Samples to a spike that is not there; more, where they were counted on from elsewhere."""
        self._place = np.empty(pixels, signed)
        self._since = np.empty((self._bins + 1, pixels), unsigned)
        """Samples from the last spike's to each edge, at least 1."""
        self._until = np.empty_like(self._since)
        """Samples from each edge to the next spike's, at least 0."""
        self._interval = np.empty(pixels, unsigned)
        self._floats = np.empty((5, pixels), np.float32)
        self._light = np.empty((self._bins, pixels), np.float32)

    def light(self, read: Callable[[int, int], Bytes]) -> Floats:
        """Return the light (K, m); the next call overwrites it.

        Args:
            read: returns some samples (stop - start, m) of the spikes, as uint8 of 0/1.
        """
        self._find_spikes(read)
        since, until, light = self._since, self._until, self._light
        ends = _Ends(self._edges, since, until, self._none)
        within = [p for p, piece in enumerate(self._pieces) if 0 <= piece.bin < self._bins]
        ends.find_intervals(self._counts[within[0] : within[-1] + 1])
        number, share, length, at_edge, at_last = self._floats
        number.fill(0)
        pieces = iter(zip(self._pieces, self._counts, strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):  # where a spike is missing
            for edge, sample in enumerate(self._edges):
                counted = 0 if edge == 0 else self._edges[edge - 1]
                while counted < sample:
                    piece, count = next(pieces)
                    np.add(number, count, out=number)
                    counted = piece.stop
                np.add(since[edge], until[edge], out=self._interval)
                np.copyto(length, self._interval)
                np.copyto(share, since[edge])
                np.subtract(share, np.float32(0.5), out=share)
                np.divide(share, length, out=share)
                ends.mend(edge, share)
                np.add(number, share, out=at_edge)
                if edge:
                    np.subtract(at_edge, at_last, out=light[edge - 1])
                at_edge, at_last = at_last, at_edge
        light[:, ends.dark] = 0
        return light

    def _find_spikes(self, read: Callable[[int, int], Bytes]) -> None:
        """Count the spikes of each piece, and find those nearest to each edge."""
        latest = self._since[0]
        latest.fill(self._none)
        for p, (start, stop, of_bin) in enumerate(self._pieces):
            samples, width = read(start, stop), stop - start
            silent, marked = self._silent[:width], self._marked[:width]
            np.subtract(samples, np.uint8(1), out=silent)  # 255, or -1, without a spike
            if of_bin >= 0:
                np.bitwise_or(silent, _PLACES[:width], out=marked)
                np.minimum.reduce(marked, axis=0, out=self._firsts[p])
            if of_bin < self._bins:
                np.add.reduce(samples, axis=0, dtype=np.uint8, out=self._counts[p])
                np.bitwise_or(silent, np.uint8(width) - _PLACES[:width], out=marked)
                np.minimum.reduce(marked, axis=0, out=self._last)
                latest = self._carry(latest, width, self._last, self._since[of_bin + 1])
        soonest = self._until[-1]
        soonest.fill(self._none)
        for (start, stop, of_bin), first in zip(
            self._pieces[::-1], self._firsts[::-1], strict=True
        ):
            if of_bin >= 0:
                soonest = self._carry(soonest, stop - start, first, self._until[of_bin])

    def _carry(self, known: Distances, width: int, places: Bytes, out: Distances) -> Distances:
        """Return distances from the other side of a piece, in which nearer spikes may be."""
        np.add(known, width, out=out)
        np.copyto(self._place, places.view(np.int8))
        np.minimum(out, self._place.view(out.dtype), out=out)
        return out


class Piece(NamedTuple):
    """Samples [start, stop)."""

    start: int
    stop: int
    bin: int
    """Index of their bin; -1: before all bins, K: after them."""


def pieces_of(n: int, edges: list[int], deepest: int = _DEEPEST) -> Iterator[Piece]:
    """Yield the pieces of a stream of n samples, in order of time, of `deepest` samples at most."""
    for of_bin, (start, stop) in enumerate(zip([0, *edges], [*edges, n], strict=True), -1):
        for first in range(start, stop, deepest):
            yield Piece(first, min(first + deepest, stop), of_bin)


class _Ends:
    """Edges before a pixel's first spike or after its last one.

    They are few, but for the first and the last edge, where all pixels may have none.

    Args:
        edges: (K + 1,) samples.
        since: (K + 1, m) samples from the last spike's.
        until: (K + 1, m) samples to the next spike's.
        none: least distance that means that there is no spike.
    """

    def __init__(self, edges: list[int], since: Distances, until: Distances, none: int) -> None:
        self._edges, self._since, self._until = edges, since, until
        # How many edges of each pixel have no spike before (after) them.
        self._firsts, self._before = _without(since, none)
        self._lasts, after = _without(until[::-1], none)
        self._after = after[::-1]
        self.dark = np.concatenate([self._before[-1], self._after[0]])
        """Pixels that fire in no bin, and neither before nor after them, or only there."""

    def find_intervals(self, counts: Bytes) -> None:
        """Find the interval nearest to each end, from the counts (P, m) in the bins' pieces."""
        pixels, last = self._since.shape[1], len(self._edges) - 1
        firsts, lasts = self._firsts.astype(np.intp), last - self._lasts.astype(np.intp)
        single = np.flatnonzero(firsts > lasts)
        total = counts[:, single].sum(axis=0, dtype=np.uint32).astype(np.float32)
        with np.errstate(divide="ignore"):  # dark
            mean = np.float32(self._edges[-1] - self._edges[0]) / total
        self._of_first, self._of_last = (np.empty(pixels, np.float32) for _ in range(2))
        for interval, edge, without in (
            (self._of_first, firsts, self._before[0]),
            (self._of_last, lasts, self._after[-1]),
        ):
            at = np.clip(edge[without], 0, last), without
            interval[without] = self._since[at].astype(np.float32) + self._until[at]
            interval[single] = mean

    def mend(self, edge: int, share: Floats) -> None:
        """Write the shares of pixels without a spike before or after an edge to `share` (m,)."""
        at = np.float32(self._edges[edge])
        half = np.float32(0.5)
        if len(without := self._before[edge]):
            until = at + self._until[edge, without].astype(np.float32) + half
            since = until - self._of_first[without]
            share[without] = np.clip((at - since) / (until - since), 0, 1)
        if len(without := self._after[edge]):
            since = at - self._since[edge, without].astype(np.float32) + half
            until = since + self._of_last[without]
            share[without] = np.clip((at - since) / (until - since), 0, 1)


def _without(
    distances: Distances, none: int
) -> tuple[npt.NDArray[np.unsignedinteger], list[Pixels]]:
    """Find the pixels without a spike on one side of edges, fewer from edge to edge.

    Returns:
        (m,) of how many edges that is true, and the pixels of each edge, parts of one array.
    """
    edges = np.zeros(distances.shape[1], np.min_scalar_type(len(distances)))
    numbers = []
    pixels = np.flatnonzero(distances[0] >= none)
    all_pixels = pixels
    for of_edge in distances:
        if len(pixels):
            pixels = pixels[of_edge[pixels] >= none]
            edges[pixels] += 1
        numbers.append(len(pixels))
    longest_first = all_pixels[np.argsort(edges[all_pixels], kind="stable")[::-1]]
    return edges, [longest_first[:number] for number in numbers]
