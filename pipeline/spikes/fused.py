"""Spikes spread over the intervals between them, in one pass over packed bits, compiled by numba.

This is what `spread` does, to the bit. A block of pixels is taken through all samples in bytes, and
through all edges between bins in floats, while it stays in a core's cache. So that the compiler
makes vector instructions of the loops over pixels, their buffers are `_BLOCK` apart, a constant.

Letters in shapes: n samples, K bins, P pieces, h and w rows and columns of pixels, m pixels of a
block, B for `_BLOCK`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from .packed import Bytes, Region, reverse_bits, unpack_bits
from .spread import pieces_of

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

_BLOCK = 1024
"""Pixels of a block; whole bytes of bits."""

_DEEPEST = 252
"""Most samples of a piece, four at a time: places in it, counted from 1, are bytes."""

_NONE = 1 << 30
"""Samples to a spike that is not there; more, where they were counted on from elsewhere."""

_ALL_BYTES = np.arange(256, dtype=np.uint8)
_PIXELS = unpack_bits(_ALL_BYTES[:, None]) * np.uint8(255)
_WORDS = _PIXELS.view(np.uint64)[:, 0].copy()
"""Eight pixels of 0 or 255, a byte each, by the byte that holds their bits."""

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def _compiled(function: F) -> F:
    return cast(F, numba.njit(**_OPTIONS)(function))


@_compiled
def _unpack(
    packed: Array,
    first_bit: int,
    row_bits: int,
    rows: int,
    columns: int,
    order: Array,
    words: Array,
) -> None:
    """Write the pixels of rows to `words`, of which each row begins one."""
    if (first_bit | columns) & 7 == 0 and row_bits == columns:
        rows, columns = 1, rows * columns
    width = (columns + 7) >> 3
    for row in range(rows):
        bit = first_bit + row * row_bits
        start, last, shift = bit >> 3, (bit + columns - 1) >> 3, np.uint32(bit & 7)
        source, to = packed[start : last + 1], words[row * width :]
        if shift == 0:
            for i in range(width):
                to[i] = _WORDS[order[source[i]]]
        else:
            low = np.uint32(order[source[0]])
            for i in range(width):
                high = np.uint32(order[source[i + 1]]) if i + 1 < len(source) else np.uint32(0)
                to[i] = _WORDS[((low >> shift) | (high << (np.uint32(8) - shift))) & np.uint32(255)]
                low = high


@_compiled
def _fill(value: Any, m: int, out: Array) -> None:
    for x in range(m):
        out[x] = value


@_compiled
def _copy(source: Array, m: int, out: Array) -> None:
    for x in range(m):
        out[x] = source[x]


@_compiled
def _take_four(found: Array, m: int, place: int, width: int) -> None:
    """Add four samples to those of a piece of `width`, from `place` on.

    found: (7 B,) uint8. The number of spikes, the place of the last one counted from 1 at the
    piece's start, that of the first one counted from its end, and four samples of 0 or 255.
    """
    last0, last1 = np.uint8(place + 1), np.uint8(place + 2)
    last2, last3 = np.uint8(place + 3), np.uint8(place + 4)
    first0, first1 = np.uint8(width - place), np.uint8(width - place - 1)
    first2, first3 = np.uint8(width - place - 2), np.uint8(width - place - 3)
    for x in range(m):
        s0, s1 = found[x + 3 * _BLOCK], found[x + 4 * _BLOCK]
        s2, s3 = found[x + 5 * _BLOCK], found[x + 6 * _BLOCK]
        found[x] = np.uint8(np.uint8(np.uint8(found[x] - s0) - s1) - s2) - s3
        found[x + _BLOCK] = max(
            max(found[x + _BLOCK], max(np.uint8(s0 & last0), np.uint8(s1 & last1))),
            max(np.uint8(s2 & last2), np.uint8(s3 & last3)),
        )
        found[x + 2 * _BLOCK] = max(
            max(found[x + 2 * _BLOCK], max(np.uint8(s0 & first0), np.uint8(s1 & first1))),
            max(np.uint8(s2 & first2), np.uint8(s3 & first3)),
        )


@_compiled
def _carry(places: Array, known: Array, m: int, width: int, nearest: int, out: Array) -> None:
    """Write distances from the other side of a piece, in which nearer spikes may be.

    places: (B,) uint8, of spikes counted from the far side; 0: none. nearest: the distance of one
    whose place is `width`.
    """
    samples, most = np.int32(width), np.int32(width + nearest)
    for x in range(m):
        place, far = np.int32(places[x]), np.int32(known[x] + samples)
        near = np.int32(most - place)
        out[x] = near if place > np.int32(0) else far


@_compiled
def _add(counts: Array, known: Array, m: int, out: Array) -> None:
    for x in range(m):
        out[x] = known[x] + np.float32(counts[x])


@_compiled
def _extend(
    since: Array, until: Array, number: Array, m: int, span: int, lone: Array, mean: Array
) -> int:
    """Go on with the nearest interval where an edge has no spike on one side.

    Returns:
        The number of pixels that have spikes in one bin alone, which are written to `lone` with
        their `mean` interval.
    """
    edges = len(since)
    lones = 0
    for x in range(m):
        if since[0, x] < _NONE and until[edges - 1, x] < _NONE:
            continue
        first, last = 0, edges - 1
        while first < edges and since[first, x] >= _NONE:
            first += 1
        while last >= 0 and until[last, x] >= _NONE:
            last -= 1
        total = number[edges - 1, x] - number[0, x]
        if first <= last:
            interval = since[first, x] + until[first, x]
            for edge in range(first):
                since[edge, x] = interval - until[edge, x]
            interval = since[last, x] + until[last, x]
            for edge in range(last + 1, edges):
                until[edge, x] = interval - since[edge, x]
        elif total > 0:
            lone[lones], mean[lones] = x, np.float32(span) / total
            lones += 1
        else:
            for edge in range(edges):  # the same share at all edges: no light
                since[edge, x] = until[edge, x] = 1
    return lones


@_compiled
def _share(since: Array, until: Array, m: int, out: Array) -> None:
    """Write the share of the next spike's light that has come."""
    half, zero = np.float32(0.5), np.float32(0)
    for x in range(m):
        before = np.float32(since[x]) - half
        after = np.float32(until[x]) + half
        before = before if before > zero else zero
        after = after if after > zero else zero
        out[x] = before / (before + after)


@_compiled
def _share_of_lone(
    since: Array, until: Array, edge: int, lone: Array, mean: Array, out: Array
) -> None:
    """Write the same for pixels that have spikes in one bin alone."""
    at, half = np.float32(edge), np.float32(0.5)
    for i in range(len(lone)):
        x = lone[i]
        if since[x] >= _NONE:
            end = at + np.float32(until[x]) + half
            start = end - mean[i]
        else:
            start = at - np.float32(since[x]) + half
            end = start + mean[i]
        share = (at - start) / (end - start)
        out[x] = min(max(share, np.float32(0)), np.float32(1))


@_compiled
def _difference(number: Array, share: Array, before: Array, m: int, sized: Array) -> None:
    """Leave light since the edge before in `share`, and that until here in `before`.

    sized: (m,) float32, its size and 1/2, of which the bits are those of a small float16.
    """
    for x in range(m):
        until = number[x] + share[x]
        light = until - before[x]
        share[x] = light
        sized[x] = abs(light) + np.float32(0.5)
        before[x] = until


@_compiled
def _halve(bits: Array, sized: Array, m: int, out: Array) -> None:
    """Write float16, from the bits of float32, rounded to the nearest, ties to even."""
    for x in range(m):
        sign = np.uint32(np.uint32(bits[x] >> np.uint32(16)) & np.uint32(0x8000))
        size = np.uint32(bits[x] & np.uint32(0x7FFFFFFF))
        odd = np.uint32(np.uint32(size >> np.uint32(13)) & np.uint32(1))
        normal = np.uint32(np.uint32(size + np.uint32(0xC8000FFF)) + odd) >> np.uint32(13)
        small = np.uint32(sized[x] - np.uint32(0x3F000000))
        half = small if size < np.uint32(0x38800000) else np.uint32(normal)
        half = np.uint32(0x7C00) if size >= np.uint32(0x477FF000) else half
        out[x] = np.uint16(half | sign)


def _light_of_bits(
    packed: Array,
    bits: tuple[int, ...],
    box: tuple[int, ...],
    order: Array,
    edges: Array,
    pieces: Array,
    floats: Array,
    halves: Array,
) -> None:
    """Write the light of a box of pixels.

    packed: (n_bytes,) uint8. bits: the first one, those from a sample to the next, and from a row
    to the next. box: rows, columns that are read, of which so many are skipped and so many
    written, and whether rows are turned. order: (256,) uint8, each byte with its first pixel as the
    least significant bit. edges: (K + 1,). pieces: (P, 3), samples [start, stop) and the bin.
    floats: (K h w,) float32; halves: (K h w,) float16 as uint16; one of them is empty.
    """
    first_bit, sample_bits, row_bits = bits
    height, width, skipped, written, turned = box
    last_edge = len(edges) - 1
    columns = min(_BLOCK, (width + 7) // 8 * 8)
    rows = _BLOCK // columns
    found = np.empty(7 * _BLOCK, np.uint8)
    words = found[3 * _BLOCK :].view(np.uint64)
    firsts = np.empty((len(pieces), _BLOCK), np.uint8)
    since = np.empty((last_edge + 1, _BLOCK), np.int32)
    until = np.empty((last_edge + 1, _BLOCK), np.int32)
    number = np.empty((last_edge + 1, _BLOCK), np.float32)
    share, before = np.empty(_BLOCK, np.float32), np.zeros(_BLOCK, np.float32)
    sized, rounded = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint16)
    lone, mean = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.float32)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            down, across = min(rows, height - top), min(columns, width - left)
            step = (across + 7) // 8 * 8
            m = down * step
            first = first_bit + top * row_bits + left
            _fill(np.int32(_NONE), m, since[0])
            _fill(np.float32(0), m, number[0])
            for p in range(len(pieces)):
                start, stop, of_bin = pieces[p]
                _fill(np.uint8(0), 3 * _BLOCK, found)
                for sample in range(start, stop, 4):
                    for i in range(4):
                        to = words[i * _BLOCK // 8 :]
                        if sample + i < stop:
                            bit = first + (sample + i) * sample_bits
                            _unpack(packed, bit, row_bits, down, across, order, to)
                        else:
                            _fill(np.uint64(0), m // 8, to)
                    _take_four(found, m, sample - start, stop - start)
                _copy(found[2 * _BLOCK :], m, firsts[p])
                if of_bin < last_edge:
                    edge = of_bin + 1
                    known = edge - 1 if edge > 0 and start == edges[edge - 1] else edge
                    _carry(found[_BLOCK:], since[known], m, stop - start, 1, since[edge])
                    _add(found, number[known], m, number[edge])
            _fill(np.int32(_NONE), m, until[last_edge])
            for p in range(len(pieces) - 1, -1, -1):
                start, stop, edge = pieces[p]
                if edge < 0:
                    break
                known = edge + 1 if edge < last_edge and stop == edges[edge + 1] else edge
                _carry(firsts[p], until[known], m, stop - start, 0, until[edge])
            lones = _extend(since, until, number, m, edges[last_edge] - edges[0], lone, mean)
            begin, end = max(skipped - left, 0), min(skipped + written - left, across)
            for edge in range(last_edge + 1):
                _share(since[edge], until[edge], m, share)
                _share_of_lone(since[edge], until[edge], edges[edge], lone[:lones], mean, share)
                _difference(number[edge], share, before, m, sized)
                if edge and len(halves):
                    _halve(share.view(np.uint32), sized.view(np.uint32), m, rounded)
                for row in range(down if edge and begin < end else 0):
                    y = height - 1 - top - row if turned else top + row
                    at = ((edge - 1) * height + y) * written + left + begin - skipped
                    if len(halves):
                        _copy(rounded[row * step + begin :], end - begin, halves[at:])
                    else:
                        _copy(share[row * step + begin :], end - begin, floats[at:])


@functools.cache
def kernel() -> Any:
    """Return the compiled function, from numba's cache where a process has compiled it before."""
    types: Any = numba.types
    read = types.Array(types.uint8, 1, "C", readonly=True)
    integers = [types.UniTuple(types.int64, length) for length in (3, 5)]
    arrays = (types.int64[::1], types.int64[:, ::1], types.float32[::1], types.uint16[::1])
    signature = types.void(read, *integers, read, *arrays)
    try:
        return numba.njit(signature, cache=True, **_OPTIONS)(_light_of_bits)
    except Exception:  # nowhere to write, a full disk, or a damaged cache: it takes seconds more
        return numba.njit(signature, **_OPTIONS)(_light_of_bits)


def light_of_region(
    packed: Bytes,
    region: Region,
    first: int,
    samples: int,
    edges: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32] | npt.NDArray[np.float16],
) -> None:
    """Write the light of a region of a stream to `out`.

    Args:
        packed: (n_bytes,) uint8, the stream.
        region: its rows and columns, and where they lie.
        first: the first sample that is known.
        samples: n, known samples.
        edges: (K + 1,) samples from the first at which bins start, and the last one's end.
        out: (K, h, w).
    """
    geometry, (height, _) = region.geometry, region.shape
    row = geometry.height - region.rows[1] if geometry.flip_rows else region.rows[0]
    start = first * geometry.frame_bits + row * geometry.width
    order = reverse_bits(_ALL_BYTES) if geometry.msb_first else _ALL_BYTES
    pieces = np.array(list(pieces_of(samples, edges.tolist(), _DEEPEST)), np.int64)
    to = 0
    for left, right in region.segments:
        target = out[:, :, to : to + right - left]
        to += right - left
        flat: Array = target if target.flags.c_contiguous else np.empty_like(target, order="C")
        floats, halves = np.empty(0, np.float32), np.empty(0, np.uint16)
        if target.dtype == np.float16:
            halves = flat.view(np.uint16).reshape(-1)
        else:
            floats = flat.reshape(-1)
        # Whole bytes, where rows consist of them: then nothing is shifted.
        begin, end = left, right
        if geometry.rows_are_bytes:
            begin, end = left // 8 * 8, -(-right // 8) * 8
        bits = (start + begin, geometry.frame_bits, geometry.width)
        box = (height, end - begin, left - begin, right - left, int(geometry.flip_rows))
        kernel()(np.asarray(packed), bits, box, order, edges, pieces, floats, halves)
        if flat is not target:
            target[...] = flat
