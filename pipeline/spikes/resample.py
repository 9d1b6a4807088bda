"""Planes of light in a grid of other pixels over the same field.

A pixel's light is the sum over its area. So along an axis the light up to each edge of an old pixel
is known; up to an edge of a new one it is interpolated, and a new pixel has the difference of its
two edges, over its size. No light is lost, hardly any detail is, and where the grids have edges in
common nothing is interpolated there. Beyond the border the plane is taken to be mirrored.

Each new pixel is computed from the old ones in the same order wherever a crop begins, so a crop is
the part of the whole, bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HALF = 3
"""Edges on each side of a place from which the light up to it is interpolated."""

Plane = npt.NDArray[np.float32]
Span = tuple[int, int]


class _Axis(NamedTuple):
    """The old pixels of which each new one is the weighted sum."""

    sources: npt.NDArray[np.intp]
    """(n, taps) old pixels."""
    weights: Plane
    """(n, taps), of sum 1; 0 where a new pixel needs fewer."""

    def around(self, span: Span) -> Span:
        """Return the old pixels that some new ones need."""
        needed = self.sources[slice(*span)]
        return int(needed.min()), int(needed.max()) + 1

    def along(self, planes: Plane, span: Span, axis: int, first: int) -> Plane:
        """Return new pixels of a plane along one axis; `first` is its first old pixel."""
        sources, weights = self.sources[slice(*span)] - first, self.weights[slice(*span)]
        shape = (-1, 1) if axis == 0 else (1, -1)
        total = planes.take(sources[:, 0], axis) * weights[:, 0].reshape(shape)
        for tap in range(1, sources.shape[1]):
            total += planes.take(sources[:, tap], axis) * weights[:, tap].reshape(shape)
        return total


class Resampling:
    """Brings planes of one size to another, whole or crop by crop."""

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        """Prepare the weights.

        Args:
            old: (h, w) of the planes, in pixels.
            new: (h', w') of the same field in the new grid.
        """
        self.shape = new
        self._rows, self._columns = (_axis(a, b) for a, b in zip(old, new, strict=True))

    def around(self, rows: Span, columns: Span) -> tuple[Span, Span]:
        """Return the rows and columns of old pixels that a crop of new ones needs."""
        return self._rows.around(rows), self._columns.around(columns)

    def resampled(
        self,
        planes: npt.NDArray[np.generic],
        rows: Span | None = None,
        columns: Span | None = None,
    ) -> Plane:
        """Return planes of new pixels.

        Args:
            planes: (..., h, w) of `around(rows, columns)`.
            rows: rows of the crop, in new pixels; None: all.
            columns: columns of the crop, in new pixels; None: all.

        Returns:
            (..., rows, columns) float32.
        """
        height, width = self.shape
        rows, columns = rows or (0, height), columns or (0, width)
        (top, _), (left, _) = self.around(rows, columns)
        size = rows[1] - rows[0], columns[1] - columns[0]
        out = np.empty((*planes.shape[:-2], *size), np.float32)
        for i in np.ndindex(planes.shape[:-2]):  # one by one: temporary values are of one plane
            plane = self._rows.along(planes[i].astype(np.float32), rows, 0, top)
            out[i] = self._columns.along(plane, columns, 1, left)
        return out


def _axis(old: int, new: int) -> _Axis:
    """Return how `new` pixels are made of `old` ones along an axis."""
    edges = np.arange(new + 1) * old
    whole, part = edges // new, edges % new / new  # (new + 1), in old pixels
    tails = _tails(part)  # (new + 1, 2 HALF + 1)
    taps = -(-old // new) + 2 * HALF
    sources = whole[:-1, None] - HALF + np.arange(taps)  # (new, taps)

    def share_before(edge: slice) -> npt.NDArray[np.float64]:
        """Return how much of each source's light is before an edge of each new pixel."""
        place = sources - (whole[edge, None] - HALF)
        return np.take_along_axis(tails[edge], place.clip(0, 2 * HALF), 1)

    weights = (share_before(slice(1, None)) - share_before(slice(0, -1))) * new / old
    weights[np.abs(weights) < 1e-9] = 0
    # What needs no light reads a pixel that is needed anyway.
    largest = sources[np.arange(new), np.abs(weights).argmax(1)]
    mirrored = np.where(weights == 0, largest[:, None], sources) % (2 * old)
    mirrored = np.where(mirrored < old, mirrored, 2 * old - 1 - mirrored)
    used = (weights != 0).any(0)
    return _Axis(mirrored[:, used], weights[:, used].astype(np.float32))


def _tails(part: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the shares of pixels that are before places within an old pixel.

    Args:
        part: (n,) where the places are in their pixel, 0 to 1.

    Returns:
        (n, 2 HALF + 1) of the HALF pixels before that one, itself, and HALF after it.
    """
    nodes = np.arange(1 - HALF, HALF + 1)  # edges around, (2 HALF)
    basis = np.ones((len(part), 2 * HALF))
    for k, node in enumerate(nodes):
        for other in nodes[nodes != node]:
            basis[:, k] *= (part - other) / (node - other)
    # A pixel's light is in the sum up to each edge behind it.
    after = basis[:, ::-1].cumsum(1)[:, ::-1]  # (n, 2 HALF)
    return np.concatenate([after, np.zeros((len(part), 1))], 1)
