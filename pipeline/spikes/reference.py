"""The reference document's own functions, by its names and with its arguments.

The pipeline itself counts with `counts.count_spikes`.
"""

from __future__ import annotations

import os
import warnings

import numpy as np
import numpy.typing as npt

from .clock import SpikeWindowError
from .counts import bin_edges
from .dat import read_spikes
from .geometry import SpikeGeometry
from .infer import infer_geometry
from .presets import parse_geometry
from .sidefile import read_side_file


def spike_to_voxel(spikes: npt.NDArray[np.uint8], bins: int = 32) -> npt.NDArray[np.float32]:
    """Sum decoded spikes (T, H, W) of 0/1 into (bins, H, W) float32 counts.

    Raises:
        SpikeWindowError: fewer samples than bins.
    """
    edges = bin_edges(len(spikes), bins)
    counts = np.add.reduceat(spikes, edges[:-1], axis=0, dtype=np.uint16)
    return counts.astype(np.float32)


def voxelize(
    events: npt.NDArray[np.floating | np.integer],
    t0: float,
    t1: float,
    height: int,
    width: int,
    bins: int = 32,
    apply_log1p: bool = True,
    mean: float | None = None,
    std: float | None = None,
) -> npt.NDArray[np.float32]:
    """Add events to a voxel grid; for a spike stream `count_spikes` gives the same, far faster.

    Args:
        events: (n, 3 or more) rows of (t in seconds, y, x, ...); the polarity is not used.
        t0: start of the window, in seconds.
        t1: its end; an event at t1 falls into the last bin. A stream's N samples at `rate` fill
            [t0, t1 + 1 / rate), which makes the bins those of `count_spikes`.
        height: rows of the grid, in pixels.
        width: its columns.
        bins: K, temporal bins.
        apply_log1p: return log(1 + count).
        mean: subtracted at the end if `std` is given too.
        std: divided by, at least 1e-12.

    Returns:
        (bins, height, width) float32. Events outside the window or the grid are dropped.

    Raises:
        SpikeWindowError: an empty window or wrongly shaped events.
    """
    if events.ndim != 2 or events.shape[1] < 3:
        raise SpikeWindowError(f"expected events (n, 3 or 4) of t, y, x, got {events.shape}")
    if not t1 > t0:
        raise SpikeWindowError(f"expected t1 after t0, got [{t0}, {t1}] s")
    t, y, x = events[:, 0].astype(np.float64), events[:, 1], events[:, 2]
    kept = (t >= t0) & (t <= t1) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    # A sample exactly on an edge belongs to the later bin; a last-bit error must not move it.
    index = np.floor((t[kept] - t0) * (bins / (t1 - t0)) + 1e-9).astype(np.int64)
    index = np.minimum(index, bins - 1)
    flat = (index * height + y[kept].astype(np.int64)) * width + x[kept].astype(np.int64)
    grid = np.bincount(flat, minlength=bins * height * width).astype(np.float32)
    grid = grid.reshape(bins, height, width)
    if apply_log1p:
        grid = np.log1p(grid)
    if mean is not None and std is not None:
        grid = (grid - np.float32(mean)) / np.float32(max(std, 1e-12))
    return grid


def load_spike_dat(
    path: str | os.PathLike[str], geometry: SpikeGeometry | None = None
) -> npt.NDArray[np.uint8]:
    """Return a whole spike file as (T, H, W) uint8 of 0/1; row 0 is the scene's top.

    Args:
        path: the `.dat`.
        geometry: which bit is which pixel. None: the side file's; without one, that of the only
            preset in which the spikes clearly make a picture. No picture shows whether its rows
            are stored bottom-up, so a `UserWarning` then names the preset.

    Raises:
        SpikeGeometryError: no geometry is given or recorded, and no preset is certain.
        SpikeFileError: the file is missing, empty, cut, or in another format.
    """
    if geometry is None and (side := read_side_file(path)) is not None:
        geometry = side.spike_geometry()
    if geometry is None:
        guess = infer_geometry(path)
        geometry = parse_geometry(guess.spec)
        warnings.warn(
            f"{os.fspath(path)}: read as {guess.spec} ({' or '.join(guess.presets)}); the sides "
            "show in the picture, the order of rows does not: check that it is upright, or give "
            "the geometry",
            stacklevel=2,
        )
    return read_spikes(path, geometry)
