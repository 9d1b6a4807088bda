"""Which spike pixel looks at which point of the colour frame.

Points are (x, y) in pixels, (0, 0) the outer corner of the first pixel, so that the centre of
pixel (row i, column j) is (j + 0.5, i + 0.5) and halving an image halves its points. A matrix
maps a spike point to a frame point: (x', y', 1) ~ M (x, y, 1).

Spikes are brought to the frames once, where they are read: each pixel of the new grid, which has
the old one's shape and covers the frame, takes the bits of the spike pixel nearest to it. Bits
stay bits, and counting commutes with it, so all readers give the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError
from .packed import Range
from .stream import SpikeStream

Matrix = tuple[float, float, float, float, float, float, float, float, float]
"""3x3, row by row."""

_Count = TypeVar("_Count", bound=np.unsignedinteger)


class RegistrationError(SpikeDeblurError):
    """A matrix maps spike pixels to no place in the frame, or is for spikes of another size."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A homography from spike points to frame points, and the sizes that it is for."""

    matrix: Matrix
    spike_shape: tuple[int, int]
    """(h, w) of the spikes, in pixels."""
    frame_shape: tuple[int, int]
    """(H, W) of the frames, in pixels."""

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (9,) or not np.isfinite(matrix).all():
            raise RegistrationError(f"expected a matrix of 9 finite numbers, got {self.matrix}")
        h, w = self.spike_shape
        depth = [x * matrix[6] + y * matrix[7] + matrix[8] for x in (0, w) for y in (0, h)]
        if (
            np.linalg.det(matrix.reshape(3, 3)) == 0
            or min(depth) <= 0 < max(depth)
            or max(depth) <= 0 <= min(depth)
        ):
            raise RegistrationError(
                f"the matrix {list(self.matrix)} maps the {h}x{w} spikes to no picture; check "
                "that it is from spike pixels to frame pixels, row by row"
            )

    def to_spikes(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the spike points (..., 2) of frame points (..., 2)."""
        x, y = points[..., 0], points[..., 1]
        rows = np.linalg.inv(np.array(self.matrix, np.float64).reshape(3, 3))
        u, v, depth = (row[0] * x + row[1] * y + row[2] for row in rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([u / depth, v / depth], axis=-1)

    def frame_rows(self) -> npt.NDArray[np.float64]:
        """Return (h,): the row of the frame at which the middle of each row of spikes looks."""
        h, w = self.spike_shape
        rows = np.array(self.matrix, np.float64).reshape(3, 3)
        _, y, depth = rows @ np.stack([np.full(h, w / 2), np.arange(h) + 0.5, np.ones(h)])
        return np.asarray(y / depth - 0.5)

    def sources(self) -> npt.NDArray[np.int32]:
        """Return (h, w) int32: for each pixel of the new grid the flat index of its spike pixel.

        -1 where no spike pixel looks.
        """
        h, w = self.spike_shape
        height, width = self.frame_shape
        x, y = np.meshgrid((np.arange(w) + 0.5) * width / w, (np.arange(h) + 0.5) * height / h)
        pixels = np.floor(self.to_spikes(np.stack([x, y], axis=-1)) + 1e-9)  # (h, w, 2)
        inside = (pixels >= 0).all(axis=-1) & (pixels[..., 0] < w) & (pixels[..., 1] < h)
        column, row = (np.where(inside, pixels[..., k], 0).astype(np.int32) for k in (0, 1))
        return np.where(inside, row * w + column, np.int32(-1)).astype(np.int32)


class RegisteredSpikes(SpikeStream):
    """A spike stream seen from the colour camera."""

    def __init__(self, file: SpikeStream, registration: Registration) -> None:
        if file.geometry.shape != registration.spike_shape:
            raise RegistrationError(
                f"{file.path}: expected spikes of {registration.spike_shape[0]}x"
                f"{registration.spike_shape[1]}, for which the registration is, found "
                f"{file.geometry.describe()}; check the geometry and the calibration"
            )
        self.path, self.geometry, self.n_frames = file.path, file.geometry, file.n_frames
        self._file = file
        self._sources = registration.sources()

    @property
    def whole(self) -> tuple[int, int]:
        """Samples [start, stop) that may be read."""
        return self._file.whole

    def read(
        self, start: int = 0, stop: int | None = None, rows: Range = None, columns: Range = None
    ) -> npt.NDArray[np.uint8]:
        """Decode samples [start, stop) of a crop, as `SpikeStream.read` says."""
        box = self._box(rows, columns)
        return box.taken(self._file.read(start, stop, box.rows, box.columns))

    def counts(
        self,
        bins: int,
        start: int = 0,
        stop: int | None = None,
        rows: Range = None,
        columns: Range = None,
        *,
        out: npt.NDArray[np.generic] | None = None,
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Count spikes in temporal bins, as `SpikeStream.counts` says."""
        box = self._box(rows, columns)
        counts: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
        counts = self._file.counts(bins, start, stop, box.rows, box.columns)
        counts = box.taken(counts)
        if out is not None:
            out[...] = counts
        return counts

    def _box(self, rows: Range, columns: Range) -> _Box:
        width = self._sources.shape[1]
        wanted = self._sources[slice(*(rows or (None,))), slice(*(columns or (None,)))]
        known = wanted[wanted >= 0]
        if not known.size:
            return _Box((0, 1), (0, 1), np.full(wanted.shape, -1, np.int32))
        y, x = np.divmod(known, width)
        top, bottom, left, right = int(y.min()), int(y.max()), int(x.min()), int(x.max())
        row, column = np.divmod(wanted, width)
        index = np.where(wanted >= 0, (row - top) * (right - left + 1) + column - left, -1)
        return _Box((top, bottom + 1), (left, right + 1), index.astype(np.int32))


@dataclass(frozen=True, slots=True)
class _Box:
    """The part of the file that a crop needs, and where in that part each pixel is."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    index: npt.NDArray[np.int32]

    def taken(self, planes: npt.NDArray[_Count]) -> npt.NDArray[_Count]:
        taken = planes.reshape(len(planes), -1)[:, self.index]
        taken[:, self.index < 0] = 0
        return taken
