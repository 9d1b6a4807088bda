"""Which geometry a headerless spike file may have: candidates ranked, ties refused.

A wrong width shears the picture and a wrong height cuts it, so neighbouring pixels of a short
TFP stop being alike. The order of rows can't be seen: upright and upside-down pictures are equally
smooth, so it stays the preset's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..host.reporter import counted
from .dat import SpikeFileError
from .geometry import SpikeGeometry, SpikeGeometryError
from .parts import open_stream
from .presets import PRESETS
from .stream import SpikeStream

_SAMPLES = 200
_CLEAR_LEAD = 0.1
"""Correlation by which the best must lead the second for a verdict."""


@dataclass(frozen=True, slots=True)
class GeometryGuess:
    """One preset under which a file is a whole number of frames."""

    presets: tuple[str, ...]
    """Names of the presets that share this geometry."""
    spec: str
    """The geometry as `parse_geometry` reads it."""
    n_frames: int
    correlation: float
    """Likeness of neighbouring pixels in a short TFP, both directions: the worse of the two."""


def rank_geometries(path: str | os.PathLike[str]) -> list[GeometryGuess]:
    """Return the presets that fit a file's size, the most plausible picture first.

    Reads at most 200 samples for each. Raises SpikeFileError as `SpikeFile.open` does.
    """
    names: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        names.setdefault(preset.geometry.describe(), []).append(name)
    guesses = []
    for spec, presets in names.items():
        geometry = PRESETS[presets[0]].geometry
        try:
            spikes = open_stream(path, geometry)
        except SpikeFileError as error:
            if isinstance(error.__cause__, SpikeGeometryError):
                continue
            raise
        counts = spikes.counts(1, 0, min(spikes.n_frames, _SAMPLES))[0]
        correlation = neighbour_correlation(counts.astype(np.float32))
        order = likelier_order(path, geometry)
        if order is not None:
            spec = order.geometry.describe()
        guesses.append(GeometryGuess(tuple(presets), spec, spikes.n_frames, correlation))
    return sorted(guesses, key=lambda guess: -guess.correlation)


@dataclass(frozen=True, slots=True)
class LikelierOrder:
    """A bit order that fits a packed file clearly better than the stated one."""

    geometry: SpikeGeometry
    """The stated geometry with the other bit order."""
    likeness: float
    """Correlation of the pixels on both sides of the borders of bytes, with this order."""
    stated: float
    """The same correlation with the stated order."""


def likelier_order(path: str | os.PathLike[str], geometry: SpikeGeometry) -> LikelierOrder | None:
    """Return the other bit order if it is clearly likelier; None: it isn't, or nothing shows it.

    Within a byte, neighbours stay neighbours in either order. Across the border of two bytes they
    are 15 pixels apart in the wrong one, and stop being alike. Reads at most 200 samples.

    Raises:
        SpikeFileError: as `SpikeFile.open`.
    """
    whole = replace(geometry, drop_columns=())
    if not whole.rows_are_bytes or whole.width < 16:
        return None
    spikes = open_stream(path, whole)
    if spikes.encoding == "bytes":
        return None
    other = replace(whole, msb_first=not whole.msb_first)
    stated, turned = (_likeness_across(s) for s in (spikes, open_stream(path, other)))
    if turned - stated < _CLEAR_LEAD:
        return None
    return LikelierOrder(replace(geometry, msb_first=other.msb_first), turned, stated)


def _likeness_across(spikes: SpikeStream) -> float:
    """Return the correlation of the last column of each byte with the first of the next one."""
    counts = spikes.counts(1, 0, min(spikes.n_frames, _SAMPLES))[0].astype(np.float32)
    return _alike(counts[:, 7:-1:8], counts[:, 8::8])


def infer_geometry(path: str | os.PathLike[str]) -> GeometryGuess:
    """Return the preset whose height and width a file clearly has; its row order is not proved.

    Raises:
        SpikeGeometryError: no preset fits, or more than one does about equally well; the message
            lists them.
        SpikeFileError: as `SpikeFile.open`.
    """
    guesses = rank_geometries(path)
    if not guesses:
        raise SpikeGeometryError(
            f"{path}: no preset gives a whole number of samples; give the geometry, "
            "HxW,bottom-up or HxW,top-down"
        )
    best, rest = guesses[0], guesses[1:]
    if best.correlation < _CLEAR_LEAD or (
        rest and best.correlation - rest[0].correlation < _CLEAR_LEAD
    ):
        listed = "; ".join(
            f"{'|'.join(g.presets)} ({g.spec}, {counted(g.n_frames, 'sample')}, likeness "
            f"{g.correlation:.2f})"
            for g in guesses[:5]
        )
        raise SpikeGeometryError(
            f"{path}: the geometry is not certain: {listed}; give the one that it is"
        )
    return best


def neighbour_correlation(image: npt.NDArray[np.float32]) -> float:
    """Return the correlation of an image (H, W) with itself one pixel on: the worse direction."""
    return min(neighbour_correlations(image))


def neighbour_correlations(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the correlation of an image (H, W) with itself one row on, and one column on."""
    return _alike(image[1:], image[:-1]), _alike(image[:, 1:], image[:, :-1])


def _alike(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    power = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / power if power > 0 else 0.0
