"""Spikes counted in temporal bins, from packed bits, without ever decoding the stream.

Sample j of N goes to bin floor(j K / N). Within a bin, 64 pixels are added at once: the frames'
words are the inputs of bit-sliced carry-save adders, plane i holding bit i of 64 counts. Only a
bin's few planes are expanded to one byte a pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .clock import SpikeWindowError
from .geometry import SpikeGeometry
from .packed import Bytes, Range, Region, unpack_bits

Words = npt.NDArray[np.uint64]

MOST_IN_BIN = 2**16 - 1
"""Most samples of a bin: its counts fit into uint16."""

_SMALL_FRAME = 8 * 2**10
"""Largest packed frame, in bytes, at which the number of calls sets the pace, not memory."""

_SMALL_FRAME_BUFFERS = (140 * 2**10, 600 * 2**10)
_LARGE_FRAME_BUFFERS = (36 * 2**10, 112 * 2**10)
"""Bytes of a plane of counts, and of counts expanded at once. A few planes stay in a core's own
cache; fresh memory of the smaller size is not given back to the system."""


def count_spikes(
    packed: Bytes,
    geometry: SpikeGeometry,
    bins: int,
    start: int = 0,
    stop: int | None = None,
    rows: Range = None,
    columns: Range = None,
    *,
    out: npt.NDArray[np.generic] | None = None,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Count spikes per pixel and temporal bin.

    Args:
        packed: (n_bytes,) uint8, frames as `geometry` says.
        geometry: which bit is which pixel.
        bins: K, temporal bins.
        start: first sample of the window.
        stop: one past its last sample; None means the stream's end.
        rows: (start, stop) of upright rows; None means all.
        columns: (start, stop) of columns; None means all.
        out: (K, h, w) of the type returned, filled and returned; None: a new array.

    Returns:
        (K, h, w) uint8, upright; uint16 where a bin holds more than 255 samples.

    Raises:
        SpikeGeometryError: not a whole number of frames, or a crop outside the image.
        SpikeWindowError: a window outside the stream, or with fewer samples than bins.
    """
    n_frames = geometry.count_frames(packed.size)
    stop = n_frames if stop is None else stop
    room = None if out is None else out[None]
    counts = count_windows(packed, geometry, bins, [(start, stop)], rows, columns, out=room)
    return counts[0] if out is None else out  # type: ignore[return-value]


def count_windows(
    packed: Bytes,
    geometry: SpikeGeometry,
    bins: int,
    windows: Sequence[tuple[int, int]],
    rows: Range = None,
    columns: Range = None,
    *,
    out: npt.NDArray[np.generic] | None = None,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Count spikes as `count_spikes` does, in several windows of one stream at once.

    Args:
        packed: (n_bytes,) uint8, frames as `geometry` says.
        geometry: which bit is which pixel.
        bins: K, temporal bins of each window.
        windows: N pairs of first sample and one past the last; they may overlap.
        rows: (start, stop) of upright rows; None means all.
        columns: (start, stop) of columns; None means all.
        out: (N, K, h, w) of the type returned, filled and returned; windows follow one another
            in memory as bins do. None: a new array.

    Returns:
        (N, K, h, w) uint8, upright; uint16 where a bin of any window holds more than 255 samples.

    Raises:
        SpikeGeometryError: not a whole number of frames, or a crop outside the image.
        SpikeWindowError: a window outside the stream, or with fewer samples than bins.
    """
    n_frames = geometry.count_frames(packed.size)
    for start, stop in windows:
        if not 0 <= start < stop <= n_frames:
            raise SpikeWindowError(
                f"expected samples inside 0:{n_frames}, got {start}:{stop}; check the window"
            )
    edges = np.stack([start + bin_edges(stop - start, bins) for start, stop in windows])
    dtype = count_type(edges)
    all_starts, all_stops = edges[:, :-1].ravel(), edges[:, 1:].ravel()
    region = Region.of(geometry, rows, columns)
    shape = (len(windows), bins, *region.shape)
    if out is None:
        out = np.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype:
        raise SpikeWindowError(f"expected an output {shape} {dtype}, got {out.shape} {out.dtype}")
    counts = out.reshape(-1, *region.shape)
    if not np.may_share_memory(counts, out):
        raise SpikeWindowError("expected an output in which windows follow one another as bins do")
    # Several bins at once where a frame's bits are few: a call costs more than their sum.
    words = -(-region.n_bytes // 8)
    small = 8 * words <= _SMALL_FRAME
    plane_bytes, expanded_bytes = _SMALL_FRAME_BUFFERS if small else _LARGE_FRAME_BUFFERS
    group = -(-len(counts) // -(-len(counts) * 8 * words // plane_bytes))
    block = max(1, expanded_bytes // (64 * words))
    adder = _BitSlicedAdder(group * words, int((all_stops - all_starts).max()))
    for first in range(0, len(counts), group):
        last = min(first + group, len(counts))
        starts, stops = all_starts[first:last], all_stops[first:last]
        for j in range(int((stops - starts).max())):
            frames = adder.buffer.reshape(group, 8 * words)
            unfinished = np.flatnonzero(starts + j < stops)  # bins with a sample j
            if len(unfinished) == group:
                region.gather(packed, starts + j, frames)
            else:
                frames[...] = 0
                breaks = np.flatnonzero(np.diff(unfinished) > 1) + 1
                for a, b in itertools.pairwise((0, *breaks.tolist(), len(unfinished))):
                    chosen = slice(unfinished[a], unfinished[b - 1] + 1)
                    region.gather(packed, starts[chosen] + j, frames[chosen])
            adder.add()
        drained = adder.drain()
        planes = [plane.reshape(group, words)[: last - first] for plane in drained]
        for at in range(0, last - first, block):
            part = [plane[at : at + block] for plane in planes]
            _expand(part, region, counts[first + at : min(first + at + block, last)])
        adder.reuse(drained)
    return out  # type: ignore[return-value]


def count_type(edges: npt.NDArray[np.int64]) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """Return the dtype that holds the counts of bins with these edges (..., K + 1), in samples.

    Raises:
        SpikeWindowError: a bin has more than `MOST_IN_BIN` samples.
    """
    deepest = int(np.diff(edges).max())
    if deepest > MOST_IN_BIN:
        raise SpikeWindowError(
            f"expected bins of at most {MOST_IN_BIN} samples, got {deepest}; take more bins or a "
            "shorter window"
        )
    return np.dtype(np.uint8) if deepest <= 255 else np.dtype(np.uint16)


def bin_edges(samples: int, bins: int) -> npt.NDArray[np.int64]:
    """Return the (bins + 1,) sample indices at which bins start: sample j is in floor(j K / N).

    Raises:
        SpikeWindowError: fewer samples than bins.
    """
    if bins < 1 or samples < bins:
        raise SpikeWindowError(
            f"expected at least one sample a bin, got {samples} samples for {bins} bins; take "
            "fewer bins or a longer exposure"
        )
    return -(-np.arange(bins + 1, dtype=np.int64) * samples // bins)


def samples_per_bin(samples: int, bins: int) -> npt.NDArray[np.int64]:
    """Return the (bins,) numbers of samples in each bin of a window of `samples`."""
    return np.diff(bin_edges(samples, bins))


class _BitSlicedAdder:
    """Adds one-bit frames, 64 pixels a word; at most `deepest` frames between two drains."""

    def __init__(self, n_words: int, deepest: int) -> None:
        self._top = deepest.bit_length() - 1
        # Level i: a plane of weight 2^i, one frame or carry that waits for a partner, and the
        # buffers not in use. Nothing is allocated after this.
        self._spare: list[Words] = [np.zeros(n_words, np.uint64) for _ in range(2 * self._top + 6)]
        self._plane: list[Words | None] = [None] * (self._top + 1)
        self._waiting: list[Words | None] = [None] * (self._top + 1)
        self._next = self._spare.pop()

    @property
    def buffer(self) -> Bytes:
        """Bytes to load the next frame into, before `add`."""
        return self._next.view(np.uint8)

    def add(self) -> None:
        """Add the frame in `buffer`."""
        frame, self._next = self._next, self._spare.pop()
        self._push(frame, 0)

    def _push(self, word: Words, level: int) -> None:
        waiting = self._waiting[level]
        if waiting is None:
            self._waiting[level] = word
            return
        self._waiting[level] = None
        plane = self._plane[level]
        if level == self._top:  # the sum fits: no carry can leave the top
            np.bitwise_xor(waiting, word, out=waiting)
            self._spare.append(word)
            if plane is None:
                self._plane[level] = waiting
            else:
                np.bitwise_xor(plane, waiting, out=plane)
                self._spare.append(waiting)
            return
        carry = self._spare.pop()
        np.bitwise_and(waiting, word, out=carry)
        np.bitwise_xor(waiting, word, out=waiting)
        if plane is None:
            self._plane[level] = waiting
        else:
            np.bitwise_and(plane, waiting, out=word)
            np.bitwise_or(carry, word, out=carry)
            np.bitwise_xor(plane, waiting, out=plane)
            self._spare.append(waiting)
        self._spare.append(word)
        self._push(carry, level + 1)

    def drain(self) -> list[Words]:
        """Return the planes of the sums, the lowest bit first; `reuse` takes them back."""
        planes: list[Words] = []
        for level in range(self._top + 1):
            waiting, plane = self._waiting[level], self._plane[level]
            self._waiting[level] = self._plane[level] = None
            if waiting is not None and plane is not None:
                if level < self._top:
                    carry = self._spare.pop()
                    np.bitwise_and(plane, waiting, out=carry)
                    self._push(carry, level + 1)
                np.bitwise_xor(plane, waiting, out=plane)
                self._spare.append(waiting)
            else:
                plane = plane if plane is not None else waiting
            if plane is None:
                break
            planes.append(plane)
        return planes

    def reuse(self, drained: list[Words]) -> None:
        """Take the drained planes back, to start anew from zero."""
        self._spare += drained


def _expand(planes: list[Words], region: Region, out: npt.NDArray[np.generic]) -> None:
    """Write the sum of bit planes (n, words) of weight 1, 2, 4, ... to `out` (n, h, w)."""
    for byte in range(0, len(planes), 8):
        *lower, top = planes[byte : byte + 8]
        total: npt.NDArray[np.uint8] | None = None
        for i, plane in enumerate(lower):
            bits = _shifted_bits(plane, i)
            total = bits if total is None else np.bitwise_or(total, bits, out=total)
        highest = region.upright(_shifted_bits(top, len(lower)))
        rest = None if total is None else region.upright(total)
        for to, of in region.column_pairs:
            target = out[..., to]
            if byte:
                value = highest[..., of] if rest is None else highest[..., of] | rest[..., of]
                np.bitwise_or(target, value.astype(np.uint16) << np.uint16(byte), out=target)
            elif rest is None:
                target[...] = highest[..., of]
            else:  # the last addition writes to its place: one pass less
                np.bitwise_or(rest[..., of], highest[..., of], out=target)


def _shifted_bits(plane: Words, weight: int) -> Bytes:
    """Return one byte a pixel (n, pixels): 2^weight where the bit is set."""
    flat = unpack_bits(plane.view(np.uint8).reshape(-1))
    bits: Bytes = flat.reshape(len(plane), -1)  # (n, pixels)
    if weight:
        words = bits.view(np.uint64)
        np.left_shift(words, np.uint64(weight), out=words)  # nothing spills from byte to byte
    return bits
