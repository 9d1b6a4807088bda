"""Packed spikes of a batch, from which the training device makes counts or light.

A spike is a bit, and a sample that several windows of a clip know is there once:

    sample of the clip   0 1 2 3 4 5 6 7 8 9 ...
    window 0             |--===========--|          =: its exposure, -: known beside it
    window 1                     |--===========--|

Letters in shapes: B clips, T windows, S samples of a batch, h rows, b bytes of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ...sequences.contract import KnownSamples


def join(
    known: Sequence[KnownSamples], windows: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Join the windows of a clip, in which each sample that they share is once.

    Args:
        known: samples of each window.
        windows: their bits, each (n, h, b) uint8.

    Returns:
        Bits that follow one another, each (n, h, b), as views; and (T, 3) int64, the samples of
        `known` counted in them.
    """
    parts: list[np.ndarray] = []
    spans = np.empty((len(known), 3), np.int64)
    length = 0
    run = (0, -1)  # samples of the sequence that the last parts hold
    for span, bits, (first, start, stop) in zip(spans, windows, known, strict=True):
        if not run[0] <= first <= run[1]:
            run = (first, first)
        more = max(stop - run[1], 0)
        if more:
            parts.append(bits[len(bits) - more :])
            length += more
            run = (run[0], stop)
        span[:] = np.array([first, start, stop]) - run[1] + length
    return parts, spans


def row_bytes(columns: int) -> int:
    """Return the most bytes of a row that a number of columns is in, from any column on."""
    return -(-(columns + 7) // 8)


def stack_spikes(
    clips: Sequence[Sequence[np.ndarray]],
    spans: Sequence[np.ndarray],
    make: Callable[[tuple[int, ...], np.dtype[np.uint8]], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Put the spikes of clips one after another.

    Args:
        clips: bits of each clip, as `join` returns them.
        spans: (T, 3) int64 of each clip.
        make: returns an array of a shape and a type.

    Returns:
        (S + 1, h, b) uint8, the last sample without spikes, as wide as the widest clip; and
        (B, T, 3) int64, samples counted in it.
    """
    parts = list(itertools.chain.from_iterable(clips))
    lengths = [sum(map(len, clip)) for clip in clips]
    width = max(part.shape[2] for part in parts)
    out = make((sum(lengths) + 1, parts[0].shape[1], width), np.dtype(np.uint8))
    at = 0
    for part in parts:
        out[at : at + len(part), :, : part.shape[2]] = part
        out[at : at + len(part), :, part.shape[2] :] = 0
        at += len(part)
    out[at] = 0
    firsts = itertools.accumulate(lengths[:-1], initial=0)
    return out, np.stack([span + first for span, first in zip(spans, firsts, strict=True)])
