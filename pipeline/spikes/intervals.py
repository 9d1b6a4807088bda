"""Light from the intervals between spikes: in bins, but as fine as the spikes' instants.

A spike reports the light of a whole threshold, which arrived since the previous spike. Each spike
is spread over that interval, and a bin gets the share inside it. This is texture from interval
(Zhu et al., ICME 2019), summed: it is exact where light is even, and a bin that a high threshold
leaves without a spike still gets its light.

Letters in shapes: n samples, K bins, h and w rows and columns of spikes.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from .counts import bin_edges

Light = npt.NDArray[np.float32]

_LONGEST_PIECE = 255  # samples, counted in a byte


def light_of_spikes(
    spikes: npt.NDArray[np.uint8], bins: int, before: int = 0, samples: int | None = None
) -> Light:
    """Spread spikes over their intervals and sum them in an exposure's bins.

    Sample j of the exposure's N is in bin floor(j K / N). A pixel counts as firing in the middle of
    a sample. Samples beside the exposure show when the interval of its first spike began, and when
    the next spike after its end came.

    Args:
        spikes: (n, h, w) uint8 of 0/1: the exposure's samples, and those beside that are known.
        bins: K, temporal bins of the exposure.
        before: number of samples before the exposure.
        samples: N, samples of the exposure; None: all after `before`.

    Returns:
        (K, h, w) float32, in spikes. Light before a pixel's first spike and after its last one is
        as even as in the nearest interval, and one spike at most.

    Raises:
        SpikeWindowError: fewer samples in the exposure than bins.
    """
    n = len(spikes)
    edges = before + bin_edges(n - before if samples is None else samples, bins)
    bounds = np.union1d(edges, [*range(0, n, _LONGEST_PIECE), n])
    counts, firsts, lasts = _in_pieces(spikes, bounds)
    at_edges = np.searchsorted(bounds, edges)
    number = np.zeros((len(bounds), *spikes.shape[1:]), np.float32)
    for piece, count in enumerate(counts):  # far faster than `cumsum` of bytes
        np.add(number[piece], count, out=number[piece + 1])
    number = number[at_edges]
    last = _latest(lasts, bounds[:-1])[at_edges] - 0.5
    following = n + 0.5 - _latest(firsts[::-1], n - bounds[:0:-1])[::-1][at_edges]
    return _between_edges(number, last, following, edges)


def _latest(places: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> Light:
    """Return (P + 1, h, w) the latest sample, counted from 1, before each bound; NaN: none.

    Args:
        places: (P, h, w), a sample of each piece, counted from 1 at its start; 0: none.
        starts: (P,), first sample of each piece.
    """
    latest = np.zeros((len(places) + 1, *places.shape[1:]), np.float32)
    for piece, start in enumerate(starts.astype(np.float32)):
        # `np.where` takes ten times as long on random choices.
        sample = np.minimum(places[piece], 1) * start + places[piece]
        np.maximum(latest[piece], sample, out=latest[piece + 1])
    return np.where(latest > 0, latest, np.float32(np.nan))


def _in_pieces(
    spikes: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], ...]:
    """Return the number of spikes in each piece of a stream, and where its first and last are.

    All are (P, h, w) uint8, which is quick. The first spike is given by the number of samples from
    it to the piece's end, the last one by the number from the piece's start to it, both included;
    0: the piece has no spike.
    """
    shape = (len(bounds) - 1, *spikes.shape[1:])
    counts, firsts, lasts = (np.zeros(shape, np.uint8) for _ in range(3))
    marked = np.empty(shape[1:], np.uint8)
    for piece, (start, stop) in enumerate(itertools.pairwise(bounds)):
        for j in range(start, stop):
            counts[piece] += spikes[j]
            for places, samples in ((firsts, stop - j), (lasts, j - start + 1)):
                np.multiply(spikes[j], np.uint8(samples), out=marked)
                np.maximum(places[piece], marked, out=places[piece])
    return counts, firsts, lasts


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
