"""Counts and light of packed spikes, made by torch where the bits are: on a GPU, or on a CPU.

What they are, `pipeline.spikes.counts` and `pipeline.spikes.intervals` say; these are the same
numbers. An exposure is cut into pieces: its bins, and what is beside it in parts as long. The
first samples of all pieces are unpacked and added together, then the second ones, and so on. So an
operation is on many pixels, which a GPU wants, and memory is for the pieces, not for the samples.

Letters in shapes: ... any batch dimensions, W all of them in one, n samples, N those of the
exposure, K bins, P pieces, L samples of the longest, h rows, b bytes of a row. Bit x % 8 of byte
x // 8, the least significant first, is column x.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..pipeline.spikes.counts import bin_edges, count_type

_LONGEST_PIECE = 255  # samples, counted in a byte

_AT_ONCE_BYTES = 256 * 2**20
"""Memory to work in, beside the output, about: as many rows are taken at once, and one at least."""

_PIECE_BYTES = 40  # of a pixel: planes of float32 and of bytes that are there at once, about


def counts_of_packed(packed: Tensor, bins: int) -> Tensor:
    """Count the spikes of exposures in temporal bins, as `count_spikes` does.

    Args:
        packed: (..., N, h, b) uint8, the exposures' samples.
        bins: K, temporal bins.

    Returns:
        (..., K, h, 8 b) uint8 on the same device; uint16 where a bin holds more than 255 samples.

    Raises:
        SpikeWindowError: fewer samples than bins.
    """
    samples = packed.shape[-3]
    pieces = _Pieces(bin_edges(samples, bins).tolist(), samples, packed.device)
    dtype = torch.uint8 if count_type(samples, bins).itemsize == 1 else torch.uint16
    out = _output(packed, bins, dtype)
    for part, target in pieces.bands(packed, out):
        counts = pieces.count(part)
        if len(counts) > bins:
            counts = _summed(counts, torch.int32)[pieces.at_edges].diff(dim=0)
        target.copy_(counts)
    return out


def light_of_packed(
    packed: Tensor, bins: int, before: int = 0, samples: int | None = None
) -> Tensor:
    """Spread spikes over their intervals and sum them in bins, as `light_of_spikes` does.

    Args:
        packed: (..., n, h, b) uint8, the exposures' samples, and those beside that are known.
            Samples without any spike may stand for those that are not.
        bins: K, temporal bins of an exposure.
        before: number of samples before the exposures.
        samples: N, samples of an exposure; None: all after `before`.

    Returns:
        (..., K, h, 8 b) float32 on the same device, in spikes.

    Raises:
        SpikeWindowError: fewer samples in an exposure than bins.
    """
    n = packed.shape[-3]
    edges = before + bin_edges(n - before if samples is None else samples, bins)
    pieces = _Pieces(edges.tolist(), n, packed.device)
    out = _output(packed, bins, torch.float32)
    for part, target in pieces.bands(packed, out):
        counts, firsts, lasts = pieces.count_and_find(part)
        number = _summed(counts, torch.float32)[pieces.at_edges]
        last = _nearest(lasts, pieces.starts)[pieces.at_edges] - 0.5
        to_end = n - pieces.longest - pieces.starts
        following = n + 0.5 - _nearest(firsts, to_end, backwards=True)[pieces.at_edges]
        target.copy_(_between_edges(number, last, following, edges.tolist()))
    return out


class _Pieces:
    """Pieces of a stream of samples, between the edges of bins and beside them.

    Args:
        edges: K + 1 samples at which bins begin and end.
        n: samples of the stream.
        device: device of the spikes.
    """

    def __init__(self, edges: list[int], n: int, device: torch.device) -> None:
        lengths = (stop - start for start, stop in itertools.pairwise(edges))
        longest = min(max(lengths), _LONGEST_PIECE)
        parts = (range(*part, longest) for part in itertools.pairwise([0, *edges, n]))
        bounds = np.array([*itertools.chain(*parts), n])
        places = bounds[:-1, None] + np.arange(longest)
        places[places >= bounds[1:, None]] = n  # a sample without spikes
        self.longest, self._n = longest, n
        self.places = torch.from_numpy(places).to(device)
        """(P, L) samples; n: the piece is shorter."""
        self.starts = torch.from_numpy(bounds[:-1]).to(device, torch.float32)
        self.at_edges = torch.from_numpy(np.searchsorted(bounds, edges)).to(device)
        """(K + 1,) which bounds of pieces are edges of bins."""

    def bands(self, packed: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the samples of some rows of all windows (n + 1, W, rows, b), and their output.

        The output is a view (K, W, rows, 8 b) of `out`.
        """
        samples = packed.reshape(-1, *packed.shape[-3:]).transpose(0, 1)  # (n, W, h, b)
        bins = out.view(-1, *out.shape[-3:]).transpose(0, 1)  # (K, W, h, 8 b)
        _, windows, height, row = samples.shape
        row_bytes = windows * 8 * row * len(self.places) * _PIECE_BYTES
        step = max(1, _AT_ONCE_BYTES // max(row_bytes, 1))
        for top in range(0, height, step):
            part = samples[:, :, top : top + step]
            band = part.new_zeros(self._n + 1, *part.shape[1:])
            band[:-1] = part
            yield band, bins[:, :, top : top + step]
            del band

    def count(self, samples: Tensor) -> Tensor:
        """Return the spikes in each piece, (n + 1, W, h, b) -> (P, W, h, 8 b) uint8."""
        counts = _unpacked(samples[self.places[:, 0]])
        for place in range(1, self.longest):
            counts += _unpacked(samples[self.places[:, place]])
        return counts

    def count_and_find(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the spikes in each piece, and where the first and last are.

        All are (P, W, h, 8 b) uint8. The first spike is given by the samples from it to where the
        longest piece would end, the last one by those from the piece's start; 0: there is none.
        """
        lasts = _unpacked(samples[self.places[:, 0]])
        counts, firsts = lasts.clone(), lasts * self.longest
        for place in range(1, self.longest):
            spikes = _unpacked(samples[self.places[:, place]])
            counts += spikes
            torch.maximum(firsts, spikes * (self.longest - place), out=firsts)
            torch.maximum(lasts, spikes * (place + 1), out=lasts)
        return counts, firsts, lasts


def _output(packed: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    *batch, _, height, row = packed.shape
    return torch.empty(*batch, bins, height, 8 * row, dtype=dtype, device=packed.device)


def _unpacked(packed: Tensor) -> Tensor:
    """Return bits as uint8 of 0/1, (..., b) -> (..., 8 b)."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return (packed.unsqueeze(-1) >> shifts).bitwise_and_(1).flatten(-2)


def _summed(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the spikes before each bound of pieces, (P, ...) -> (P + 1, ...)."""
    number = counts.new_zeros(len(counts) + 1, *counts.shape[1:], dtype=dtype)
    for piece, count in enumerate(counts):  # `cumsum` is slow along the first axis
        torch.add(number[piece], count, out=number[piece + 1])
    return number


def _nearest(places: Tensor, starts: Tensor, *, backwards: bool = False) -> Tensor:
    """Return (P + 1, ...) the latest sample, counted from 1, before each bound; NaN: none.

    Args:
        places: (P, ...) uint8, a sample of each piece, counted from 1 at its start; 0: none.
        starts: (P,) float32, samples before each piece.
        backwards: samples are counted from the end, and the latest one is after each bound.
    """
    pieces = len(places)
    nearest = places.new_zeros(pieces + 1, *places.shape[1:], dtype=torch.float32)
    samples = nearest[:-1] if backwards else nearest[1:]
    torch.add(places, starts.view(-1, *[1] * (places.ndim - 1)), out=samples)
    samples.masked_fill_(places == 0, 0)
    for piece in range(pieces - 2, -1, -1) if backwards else range(1, pieces):
        neighbour = samples[piece + 1 if backwards else piece - 1]
        torch.maximum(samples[piece], neighbour, out=samples[piece])
    return nearest.masked_fill_(nearest == 0, torch.nan)


def _between_edges(number: Tensor, last: Tensor, following: Tensor, edges: list[int]) -> Tensor:
    """Return the light between edges (K + 1); see `pipeline.spikes.intervals`.

    Args:
        number: (K + 1, ...) spikes until each edge.
        last: (K + 1, ...) instant of the last spike before each edge, in samples; NaN: none.
        following: (K + 1, ...) instant of the first spike after it, in samples; NaN: none.
        edges: K + 1, in samples.
    """
    total = number[-1] - number[0]
    # A number over a tensor would be rounded twice.
    mean = torch.full_like(total, edges[-1] - edges[0]) / total.clamp(min=1)
    mean = mean.masked_fill_(total == 0, torch.inf)
    intervals = following - last
    most = len(intervals) - 1

    def interval_at(edge: Tensor) -> Tensor:
        interval = intervals.gather(0, edge.clamp_(0, most)[None])[0]
        return torch.where(interval.isnan(), mean, interval)

    # A spike is known before each edge from some edge on, and after each one until some edge.
    of_first = interval_at(last.isnan().sum(0))
    of_last = interval_at(most - following.isnan().sum(0))
    since = torch.where(last.isnan(), following - of_first, last)
    until = torch.where(following.isnan(), last + of_last, following)
    at = torch.tensor(edges, dtype=torch.float32, device=last.device)
    passed = at.view(-1, *[1] * (last.ndim - 1)) - since
    number += passed.div_(until.sub_(since)).clamp_(0, 1)
    return number.nan_to_num_().diff(dim=0)
