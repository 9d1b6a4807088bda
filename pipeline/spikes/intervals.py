"""Light from the intervals between spikes: in bins, but as fine as the spikes' instants.

A spike says that a threshold's worth of light came since the one before it, not that it came now.
So each is spread over the time since the one before, and a bin gets what of it is inside. This is
texture from interval (Zhu et al., ICME 2019), summed: where light is even it is exact, and where a
high threshold leaves a bin without a spike, what is known of it is not lost.

Letters in shapes: n samples, K bins, h and w rows and columns of spikes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .counts import bin_edges

Light = npt.NDArray[np.float32]


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
    edges = before + bin_edges(len(spikes) - before if samples is None else samples, bins)
    fired = spikes.view(np.bool_)
    shape = (bins + 1, *spikes.shape[1:])
    number, last, following = (np.empty(shape, np.float32) for _ in range(3))
    count = np.zeros(shape[1:], np.uint32)
    instant = np.full(shape[1:], np.nan, np.float32)
    done = 0
    for edge, stop in enumerate(edges):
        for j in range(done, stop):
            count += spikes[j]
            np.copyto(instant, j + 0.5, where=fired[j])
        number[edge], last[edge], done = count, instant, stop
    instant.fill(np.nan)
    done = len(spikes)
    for edge, start in reversed(list(enumerate(edges))):
        for j in range(done - 1, start - 1, -1):
            np.copyto(instant, j + 0.5, where=fired[j])
        following[edge], done = instant, start
    return _between_edges(number, last, following, edges)


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
    """Return the light between edges (K + 1).

    Args:
        number: (K + 1, h, w), spikes until each edge.
        last: (K + 1, h, w), the instant of the last of them, in samples; NaN: there is none.
        following: (K + 1, h, w), of the first spike after it; NaN: there is none.
        edges: in samples.
    """
    at = edges.astype(np.float32)[:, None, None]
    known = ~np.isnan(last) & ~np.isnan(following)
    pace: Light = np.reciprocal(following - last)  # (K + 1, h, w), in spikes a sample
    light = number + (at - last) * pace
    if known.all():
        return np.diff(light, axis=0)
    mean: Light = (number[-1] - number[0]) / np.float32(edges[-1] - edges[0])
    at_first, at_last = (_of_first(known[::step], pace[::step], mean) for step in (1, -1))
    until_first = number + np.maximum(1 - (following - at) * at_first, 0)
    since_last = number + np.minimum((at - last) * at_last, 1)
    light = np.where(known, light, np.where(np.isnan(last), until_first, since_last))
    return np.diff(np.nan_to_num(light), axis=0)  # a pixel that never fired has no light


def _of_first(known: npt.NDArray[np.bool_], values: Light, otherwise: Light) -> Light:
    """Return of values (K + 1, h, w) the first that is known; (h, w)."""
    first = np.take_along_axis(values, known.argmax(axis=0)[None], axis=0)[0]
    return np.where(known.any(axis=0), first, otherwise)
