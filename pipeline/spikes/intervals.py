"""Light from the intervals between spikes: in bins, but as fine as the spikes' instants.

A spike reports the light of a whole threshold, which arrived since the previous spike. Each spike
is spread over that interval, and a bin gets the share inside it. This is texture from interval
(Zhu et al., ICME 2019), summed: it is exact where light is even, and a bin that a high threshold
leaves without a spike still gets its light.

Letters in shapes: n samples, K bins, h and w rows and columns of spikes.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import numpy.typing as npt

from .clock import SpikeWindowError
from .counts import bin_edges
from .geometry import SpikeGeometry
from .half import write_rounded
from .packed import Bytes, Range, Region, pack_bits
from .spread import Spreader

Light = npt.NDArray[np.float32]

HalfLight = npt.NDArray[np.float16]
_Reader = Callable[[int, int], Bytes]

MOST_BY_NUMPY = 1 << 21
"""Pixels of exposures, about, whose light takes NumPy as long as it takes to load numba."""

_AT_ONCE = 1 << 15
"""Pixels handled at once."""

_by_numpy = 0  # pixels of exposures, before numba was loaded


def light_of_spikes(
    spikes: Bytes,
    bins: int,
    before: int = 0,
    samples: int | None = None,
    *,
    out: Light | HalfLight | None = None,
) -> Light | HalfLight:
    """Spread spikes over their intervals and sum them in an exposure's bins.

    Sample j of the exposure's N is in bin floor(j K / N). A pixel counts as firing in the middle of
    a sample. Samples beside the exposure show when the interval of its first spike began, and when
    the next spike after its end came.

    Args:
        spikes: (n, h, w) uint8 of 0/1: the exposure's samples, and those beside that are known.
        bins: K, temporal bins of the exposure.
        before: number of samples before the exposure.
        samples: N, samples of the exposure; None: all after `before`.
        out: (K, h, w), filled and returned; float16 is float32, rounded. None: a new array.

    Returns:
        (K, h, w) float32, in spikes. Light before a pixel's first spike and after its last one is
        as even as in the nearest interval, and one spike at most.

    Raises:
        SpikeWindowError: fewer samples in the exposure than bins.
    """
    n, height, width = spikes.shape
    edges = before + bin_edges(n - before if samples is None else samples, bins)
    if out is None:
        out = np.empty((bins, height, width), np.float32)
    fused = _compiled_for(height * width)
    if fused is None:
        _spread(lambda *rows: _reader(spikes[:, slice(*rows)]), n, edges, out)
    else:
        packed = pack_bits(spikes)  # (n, h, ceil(w / 8))
        geometry = SpikeGeometry(height=height, width=8 * packed.shape[2], flip_rows=False)
        region = Region.of(geometry, columns=(0, width))
        fused.light_of_region(packed.reshape(-1), region, 0, n, edges, out)
    return out


def light_of_packed(
    packed: Bytes,
    geometry: SpikeGeometry,
    bins: int,
    exposure: tuple[int, int],
    known: tuple[int, int],
    rows: Range = None,
    columns: Range = None,
    *,
    out: Light | HalfLight | None = None,
) -> Light | HalfLight:
    """Spread packed spikes over their intervals, as `light_of_spikes` does.

    Args:
        packed: (n_bytes,) uint8, frames as `geometry` says.
        geometry: which bit is which pixel.
        bins: K, temporal bins of the exposure.
        exposure: its first sample and one past the last.
        known: the first sample that is used and one past the last, around the exposure.
        rows: (start, stop) of upright rows; None means all.
        columns: (start, stop) of columns; None means all.
        out: (K, h, w), filled and returned; float16 is float32, rounded. None: a new array.

    Returns:
        (K, h, w) float32, upright, in spikes.

    Raises:
        SpikeGeometryError: not a whole number of frames, or a crop outside the image.
        SpikeWindowError: samples outside the stream, or fewer in the exposure than bins.
    """
    n_frames = geometry.count_frames(packed.size)
    (start, stop), (first, last) = exposure, known
    if not 0 <= first <= start < stop <= last <= n_frames:
        raise SpikeWindowError(
            f"expected an exposure inside of known samples inside 0:{n_frames}, got {start}:{stop} "
            f"in {first}:{last}; check the window"
        )
    region = Region.of(geometry, rows, columns)
    edges = start - first + bin_edges(stop - start, bins)
    if out is None:
        out = np.empty((bins, *region.shape), np.float32)
    fused = _compiled_for(math.prod(region.shape))
    if fused is not None:
        fused.light_of_region(packed, region, first, last - first, edges, out)
        return out

    flip = geometry.flip_rows

    def rows_as_stored(top: int, bottom: int) -> _Reader:
        height = region.shape[0]
        band = region.band(*((height - bottom, height - top) if flip else (top, bottom)))
        unpack, pairs = band.unpacker(packed), band.column_pairs

        def read(start: int, stop: int) -> Bytes:
            pixels = unpack(first + start, first + stop)
            if band.packed_width != band.shape[1]:
                pixels = np.concatenate([pixels[..., of] for _, of in pairs], axis=-1)
            return pixels.reshape(stop - start, -1)

        return read

    _spread(rows_as_stored, last - first, edges, out[:, ::-1] if flip else out)
    return out


def _reader(spikes: Bytes) -> _Reader:
    """Return a function that reads samples of spikes (n, h, w) as pixels."""
    return lambda start, stop: spikes[start:stop].reshape(stop - start, -1)


def _spread(
    rows: Callable[[int, int], _Reader],
    n: int,
    edges: npt.NDArray[np.int64],
    out: Light | HalfLight,
) -> None:
    """Write light to `out` (K, h, w), from what `rows` returns for some rows: see `Spreader`."""
    bins, height, width = out.shape
    step = -(-height // -(-height * width // _AT_ONCE))  # rows at once, as many in each block
    spreader = None
    for top in range(0, height, step):
        bottom = min(top + step, height)
        pixels = (bottom - top) * width
        if spreader is None or spreader.pixels != pixels:
            spreader = Spreader(n, edges, pixels)
        light = spreader.light(rows(top, bottom)).reshape(bins, -1, width)
        write_rounded(light, out[:, top:bottom])


def _compiled_for(pixels: int) -> ModuleType | None:
    """Return the compiled way for the light of so many more pixels of an exposure; None: NumPy.

    Loading it takes half a second and 0.1 GB, so a process first makes by NumPy what takes as long.
    """
    global _by_numpy
    if f"{__package__}.fused" in sys.modules or _by_numpy >= MOST_BY_NUMPY:
        return compiled()
    _by_numpy += pixels
    return None


@functools.cache
def compiled() -> ModuleType | None:
    """Return the compiled way to the same light; None: numba, an extra, isn't there or won't load.

    The way is chosen here only. Compiled, light takes 0.2 to 0.6 of the time.
    """
    try:
        return importlib.import_module(".fused", __package__)
    except (ImportError, OSError):
        return None


def light_of_counts(counts: npt.NDArray[np.integer], samples: int) -> Light:
    """Spread the spikes of raw counts over their intervals.

    The spikes of a bin are taken as evenly spaced in it; there are none beside the exposure.

    Args:
        counts: (K, h, w) raw counts.
        samples: N, samples of the exposure.

    Returns:
        (K, h, w) float32, in spikes, like `light_of_spikes`.

    Raises:
        SpikeWindowError: fewer samples than bins.
    """
    edges = bin_edges(samples, len(counts))
    starts, stops = (part.astype(np.float32)[:, None, None] for part in (edges[:-1], edges[1:]))
    within = (stops - starts) / (2 * np.maximum(counts, 1).astype(np.float32))
    # The nearest spike to each end of a bin; NaN: the bin has none.
    firsts = np.where(counts > 0, starts + within, np.float32(np.nan))
    lasts = np.where(counts > 0, stops - within, np.float32(np.nan))
    none = np.full((1, *counts.shape[1:]), np.nan, np.float32)
    last = np.fmax.accumulate(np.concatenate([none, lasts]))
    following = np.fmin.accumulate(np.concatenate([firsts, none])[::-1])[::-1]
    number = np.concatenate([np.zeros_like(none), counts.cumsum(0, np.float32)])
    return _between_edges(number, last, following, edges)


def _between_edges(
    number: Light, last: Light, following: Light, edges: npt.NDArray[np.int64]
) -> Light:
    """Return the light between edges (K + 1). Overwrites `number`.

    Args:
        number: (K + 1, h, w), spikes until each edge.
        last: (K + 1, h, w), instant of the last spike before each edge, in samples; NaN: none.
        following: (K + 1, h, w), instant of the first spike after it, in samples; NaN: none.
        edges: (K + 1,), in samples.
    """
    total = number[-1] - number[0]
    mean = np.where(total > 0, (edges[-1] - edges[0]) / np.maximum(total, 1), np.inf)
    intervals = following - last  # (K + 1, h, w)
    of_first = of_last = mean.astype(np.float32)
    for interval in intervals:
        of_last = np.where(np.isnan(interval), of_last, interval)
    for interval in intervals[::-1]:
        of_first = np.where(np.isnan(interval), of_first, interval)
    with np.errstate(invalid="ignore"):  # a pixel that never fired has NaN only
        for edge, at in enumerate(edges.astype(np.float32)):
            since, until = last[edge], following[edge]
            since, until = (
                np.where(np.isnan(since), until - of_first, since),
                np.where(np.isnan(until), since + of_last, until),
            )
            number[edge] += np.clip((at - since) / (until - since), 0, 1)
    return np.diff(np.nan_to_num(number, copy=False), axis=0)
