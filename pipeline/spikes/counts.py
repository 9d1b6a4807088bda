"""Spikes counted in temporal bins, from packed bits.

Sample j of N goes to bin floor(j K / N). A bin's samples are unpacked to one byte a pixel, as many
rows at a time as stay in a core's cache, and summed in bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..host.reporter import counted
from .clock import SpikeWindowError
from .geometry import SpikeGeometry
from .packed import Bytes, Range, Region

MOST_IN_BIN = 2**16 - 1
"""Most samples of a bin: its counts fit into uint16."""

_DEEP = 32
"""Most samples summed at once: few enough that a block of them is many rows high."""

_BLOCK_BYTES = 2**18, 2**20
"""Least and most bytes unpacked at once; between them, a sixth of the output. One bin of one window
may take twice the least: fewer calls are worth more than the memory."""


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
    delays: npt.NDArray[np.integer] | None = None,
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
        delays: (H,) samples by which the windows begin and end later in each upright row of the
            image, as under a rolling shutter; None: every row at once.
        out: (N, K, h, w) of the type returned, filled and returned; None: a new array.

    Returns:
        (N, K, h, w) uint8, upright; uint16 where a bin of any window holds more than 255 samples.

    Raises:
        SpikeGeometryError: not a whole number of frames, or a crop outside the image.
        SpikeWindowError: a window outside the stream, or with fewer samples than bins.
    """
    n_frames = geometry.count_frames(packed.size)
    region = Region.of(geometry, rows, columns)
    runs = _rows_that_begin_together(region, delays)
    earliest, latest = min(delay for *_, delay in runs), max(delay for *_, delay in runs)
    for start, stop in windows:
        first, last = start + earliest, stop + latest
        if start >= stop or first < 0 or last > n_frames:
            raise SpikeWindowError(
                f"expected samples inside 0:{n_frames}, got {first}:{last}; check the window"
            )
    edges = [_edges_of_parts(start, stop, bins) for start, stop in windows]
    longest = max(stop - start for start, stop in windows)
    dtype = count_type(longest, bins)
    shape = (len(windows), bins, *region.shape)
    if out is None:
        out = np.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype:
        raise SpikeWindowError(f"expected an output {shape} {dtype}, got {out.shape} {out.dtype}")
    height = region.shape[0]
    row_bytes = region.packed_width * min(-(-longest // bins), _DEEP)
    least, most = _BLOCK_BYTES
    block = min(max(least, out.nbytes // 6, min(height * row_bytes, 2 * least)), most)
    step = -(-height // -(-height * row_bytes // block))  # rows at once, as many in each block
    for first, last, delay in runs:
        for top in range(first, last, step):
            bottom = min(top + step, last)
            band = region.band(top, bottom)
            together = max(1, block // (row_bytes * (bottom - top)))
            for window, counts in zip(edges, out[:, :, top:bottom], strict=True):
                _count_band(packed, band, [edge + delay for edge in window], together, counts)
    return out  # type: ignore[return-value]


def _rows_that_begin_together(
    region: Region, delays: npt.NDArray[np.integer] | None
) -> list[tuple[int, int, int]]:
    """Return the region's rows as runs (top, bottom, delay in samples)."""
    height = region.shape[0]
    if delays is None:
        return [(0, height, 0)]
    if delays.shape != (region.geometry.height,) or delays.dtype.kind not in "iu":
        raise SpikeWindowError(
            f"expected one whole delay for each of {region.geometry.height} rows, got "
            f"{delays.shape} {delays.dtype}"
        )
    late = delays[slice(*region.rows)].tolist()
    cuts = [0, *(row for row in range(1, height) if late[row] != late[row - 1]), height]
    return [(top, bottom, late[top]) for top, bottom in itertools.pairwise(cuts)]


def _edges_of_parts(start: int, stop: int, bins: int) -> list[int]:
    """Return the edges of a window's bins, with edges between where a bin has too many samples.

    Edge k of K bins is edge k P of K P, so each bin's P parts begin and end with it.
    """
    samples = stop - start
    edges = bin_edges(samples, bins)
    parts = -(-samples // (bins * _DEEP))
    if parts > 1:
        edges = bin_edges(samples, bins * parts)
    return [start + edge for edge in edges.tolist()]


def _count_band(
    packed: Bytes, band: Region, edges: list[int], together: int, out: npt.NDArray[np.generic]
) -> None:
    """Write the counts of a window's bins in some rows to `out` (K, h, w)."""
    parts = (len(edges) - 1) // len(out)
    unpack = band.unpacker(packed)
    direct = band.is_stored_so and parts == 1
    counts = np.empty((band.shape[0], band.packed_width), np.uint8)
    upright = [] if direct else [(to, band.upright(counts)[:, of]) for to, of in band.column_pairs]
    for at in range(0, len(edges) - 1, together):
        group = edges[at : at + together + 1]
        pixels = unpack(group[0], group[-1])
        for i, (first, last) in enumerate(itertools.pairwise(group), at):
            samples, target = pixels[first - group[0] : last - group[0]], out[i // parts]
            np.add.reduce(samples, axis=0, dtype=np.uint8, out=target if direct else counts)
            for to, columns in upright:
                if i % parts == 0:
                    target[:, to] = columns
                else:
                    target[:, to] += columns
        del pixels, samples  # the next block takes their place in the cache


def count_type(samples: int, bins: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """Return the dtype that holds the counts of a window of `samples` in `bins`.

    Raises:
        SpikeWindowError: a bin has more than `MOST_IN_BIN` samples.
    """
    deepest = -(-samples // bins)
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
            f"expected at least one sample a bin, got {counted(samples, 'sample')} for "
            f"{counted(bins, 'bin')}; take fewer bins or a longer exposure"
        )
    return -(-np.arange(bins + 1, dtype=np.int64) * samples // bins)


def samples_per_bin(samples: int, bins: int) -> npt.NDArray[np.int64]:
    """Return the (bins,) numbers of samples in each bin of a window of `samples`."""
    return np.diff(bin_edges(samples, bins))
