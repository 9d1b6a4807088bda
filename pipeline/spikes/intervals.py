"""Light from the intervals between spikes: in bins, but as fine as the spikes' instants.

A spike says that a threshold's worth of light came since the one before it, not that it came now.
So each is spread over the time since the one before, and a bin gets what of it is inside. This is
texture from interval (Zhu et al., ICME 2019), summed: where light is even it is exact, and where a
high threshold leaves a bin without a spike, what is known of it is not lost.

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

    Sample j of the exposure's N is in bin floor(j K / N). A pixel fires somewhere within a sample:
    in its middle, as far as is known. Samples beside the exposure tell when light came that fired
    after its end, and since when what fired first had come.

    Args:
        spikes: (n, h, w) uint8 of 0/1: the exposure's samples, and what is known of those beside.
        bins: K.
        before: samples before the exposure.
        samples: N, of the exposure; None: all.

    Returns:
        (K, h, w) float32, in spikes. Before a pixel's first spike and after its last light goes on
        as between the two spikes next to it, by one spike at most.

    Raises:
        SpikeWindowError: fewer samples in the exposure than bins.
    """
    n = len(spikes)
    edges = before + bin_edges(n - before if samples is None else samples, bins)
    bounds = np.union1d(edges, [*range(0, n, _LONGEST_PIECE), n])
    counts, firsts, lasts = _in_pieces(spikes, bounds)
    at_edges = np.searchsorted(bounds, edges)
    number = np.zeros((len(bounds), *spikes.shape[1:]), np.float32)
    for piece, found in enumerate(counts):  # far faster than `cumsum` of bytes
        np.add(number[piece], found, out=number[piece + 1])
    number = number[at_edges]
    last = _latest(lasts, bounds[:-1])[at_edges] - 0.5
    following = n + 0.5 - _latest(firsts[::-1], n - bounds[:0:-1])[::-1][at_edges]
    return _between_edges(number, last, following, edges)


def _latest(found: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> Light:
    """Return (P + 1, h, w): until each bound the latest of what was found; NaN: nothing.

    Args:
        found: (P, h, w), samples since a piece's start, from 1; 0: nothing.
        starts: (P,), where pieces start.
    """
    latest = np.zeros((len(found) + 1, *found.shape[1:]), np.float32)
    for piece, start in enumerate(starts.astype(np.float32)):
        # No choice by `np.where`: of what comes at random it takes ten times as long.
        there = np.minimum(found[piece], 1) * start + found[piece]
        np.maximum(latest[piece], there, out=latest[piece + 1])
    return np.where(latest > 0, latest, np.float32(np.nan))


def _in_pieces(
    spikes: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], ...]:
    """Return of pieces (P, h, w) of a stream how many spikes they hold, and where.

    Bytes are enough, and quick: where is told by the samples from the first spike to the piece's
    end, and from its start to the last one, both included; 0: there is none.
    """
    shape = (len(bounds) - 1, *spikes.shape[1:])
    counts, firsts, lasts = (np.zeros(shape, np.uint8) for _ in range(3))
    marked = np.empty(shape[1:], np.uint8)
    for piece, (start, stop) in enumerate(itertools.pairwise(bounds)):
        for j in range(start, stop):
            counts[piece] += spikes[j]
            for found, samples in ((firsts, stop - j), (lasts, j - start + 1)):
                np.multiply(spikes[j], np.uint8(samples), out=marked)
                np.maximum(found[piece], marked, out=found[piece])
    return counts, firsts, lasts


def light_of_counts(counts: npt.NDArray[np.integer], samples: int) -> Light:
    """Spread spikes, of which only their number in each bin is known, over their intervals.

    Those of a bin are even in it; nothing is known of the time beside the exposure.

    Args:
        counts: (K, h, w) raw counts.
        samples: N, in the exposure.

    Returns:
        As `light_of_spikes`.

    Raises:
        SpikeWindowError: fewer samples than bins.
    """
    edges = bin_edges(samples, len(counts))
    starts, stops = (part.astype(np.float32)[:, None, None] for part in (edges[:-1], edges[1:]))
    within = (stops - starts) / (2 * np.maximum(counts, 1).astype(np.float32))
    # The nearest spike to each end of a bin; NaN: there is none.
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
        last: (K + 1, h, w), the instant of the last of them, in samples; NaN: there is none.
        following: (K + 1, h, w), of the first spike after it; NaN: there is none.
        edges: in samples.
    """
    total = number[-1] - number[0]
    mean = np.where(total > 0, (edges[-1] - edges[0]) / np.maximum(total, 1), np.inf)
    intervals = following - last  # (K + 1, h, w)
    of_first = of_last = mean.astype(np.float32)
    for interval in intervals:
        of_last = np.where(np.isnan(interval), of_last, interval)
    for interval in intervals[::-1]:
        of_first = np.where(np.isnan(interval), of_first, interval)
    with np.errstate(invalid="ignore"):  # of a pixel that never fired nothing is a number
        for edge, at in enumerate(edges.astype(np.float32)):
            since, until = last[edge], following[edge]
            since, until = (
                np.where(np.isnan(since), until - of_first, since),
                np.where(np.isnan(until), since + of_last, until),
            )
            number[edge] += np.clip((at - since) / (until - since), 0, 1)
    return np.diff(np.nan_to_num(number, copy=False), axis=0)
