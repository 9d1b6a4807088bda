"""What else may these spikes be? Tried where they do not look like their frames.

Read in another row order, mirrored, transposed, in another geometry, or another sequence's: each
is searched like the timeline's own reading, and named if it fits clearly better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....errors import SpikeDeblurError
from ...frames.images import image_shape
from ...spikes.dat import SpikeFile
from ...spikes.geometry import SpikeGeometry
from ...spikes.infer import neighbour_correlation
from ...spikes.presets import PRESETS
from ..manifest import Problem, ReferenceKind, Verification
from .lag import Match, find_lag
from .sliding import Plane, Reference
from .verify import LIKELY, FrameAt, read_luminance, search_range, sharp_widths, spread

_FRAMES = 3
_CLEARLY = 0.1
"""By how much a reading must correlate better than the one that was given."""
_ENOUGH = 0.5
"""Correlation that a reading must have to be named."""
_SAMPLES = 200
_MIN_ALIKE = 0.1
"""Correlation of neighbouring pixels under which a reading shears the picture."""
_SCALES = (1, 2, 3, 4, 8)
"""Sides of a frame over those of its spikes that are tried."""


@dataclass(frozen=True, slots=True)
class _Reading:
    problem: Problem
    geometry: SpikeGeometry
    turned: Callable[[Plane], Plane]
    """What it does to an upright image."""
    transposed: bool
    words: str


def name_suspect(frames: list[FrameAt], found: Verification) -> Verification:
    """Return `found`, naming what is wrong with geometry or orientation if that fits better."""
    if found.correlation >= LIKELY or found.problem == "flat":
        return found
    best: tuple[float, _Reading] | None = None
    for reading in _readings(frames[0], found.by):
        match = _search(frames, found.by, reading)
        if match is not None and (best is None or match.peak > best[0]):
            best = match.peak, reading
    if best is None or best[0] < max(_ENOUGH, found.correlation + _CLEARLY):
        return found
    peak, reading = best
    return _named(found, reading.problem, f"{reading.words} ({peak:.2f})")


def name_owner(
    frames: list[FrameAt], found: Verification, others: Iterable[tuple[str, list[FrameAt]]]
) -> Verification:
    """Return `found`, naming the sequence whose recording fits the frames better, if one does.

    Args:
        frames: of the sequence.
        found: of the sequence itself.
        others: name and frames of sequences whose recordings may have been exchanged for it.
    """
    best: tuple[float, str] | None = None
    upright = _Reading("swapped", frames[0].spikes.geometry, _same, False, "")
    for name, theirs in others:
        if theirs[0].spikes.geometry.shape != frames[0].spikes.geometry.shape:
            continue
        borrowed = [
            replace(frame, spikes=theirs[0].spikes, clock=theirs[0].clock) for frame in frames
        ]
        match = _search(borrowed, found.by, upright)
        if match is not None and (best is None or match.peak > best[0]):
            best = match.peak, name
    if best is None or best[0] < max(_ENOUGH, found.correlation + _CLEARLY):
        return found
    words = f"the spikes of {best[1]} fit these frames ({best[0]:.2f}): files are swapped"
    return _named(found, "swapped", words)


def _named(found: Verification, problem: Problem, words: str) -> Verification:
    warning = (
        f"spikes and {found.by} frames do not look alike (correlation {found.correlation:.2f} at "
        f"best); {words}"
    )
    return found.model_copy(
        update={"problem": problem, "warning": warning, "confident": False, "confidence": 0.0}
    )


def _search(frames: list[FrameAt], kind: ReferenceKind, reading: _Reading) -> Match | None:
    geometry = reading.geometry
    if geometry != frames[0].spikes.geometry and not _is_picture(frames[0].spikes, geometry):
        return None
    upright = geometry.shape[::-1] if reading.transposed else geometry.shape
    references = []
    for frame in spread([f for f in frames if f.image(kind) is not None], _FRAMES):
        path = frame.image(kind)
        assert path is not None
        spikes = frame.spikes
        if geometry != spikes.geometry:
            spikes = SpikeFile.open(spikes.path, geometry)
        image = np.ascontiguousarray(reading.turned(read_luminance(path, upright)))
        widths = (frame.samples,) if kind == "blur" else sharp_widths(frame.samples)[-3:]
        references.append(Reference(image=image, spikes=spikes, at=frame.at, widths=widths))
    reach, step = search_range(frames[0].samples)
    return find_lag(references, reach, step)


def _is_picture(spikes: SpikeFile, geometry: SpikeGeometry) -> bool:
    """Whether the file holds whole frames of this geometry, in which neighbours are alike."""
    try:
        read = SpikeFile.open(spikes.path, geometry)
    except SpikeDeblurError:
        return False
    counts = read.counts(1, 0, min(read.n_frames, _SAMPLES))[0]
    return neighbour_correlation(counts.astype(np.float32)) >= _MIN_ALIKE


def _same(image: Plane) -> Plane:
    return image


def _readings(frame: FrameAt, kind: ReferenceKind) -> Iterator[_Reading]:
    own = frame.spikes.geometry
    height, width = own.height, own.width
    other = replace(own, flip_rows=not own.flip_rows)
    yield _Reading(
        "rows flipped", other, _same, False, f"their rows are the other way up: {_give(other)}"
    )
    yield _Reading("columns flipped", own, _mirrored, False, "they are mirrored from left to right")
    yield _Reading("rotated", other, _mirrored, False, "they are turned by 180 degrees")
    if not own.drop_columns:
        crosswise = SpikeGeometry(
            height=width, width=height, flip_rows=False, pad_frames=own.pad_frames
        )
        # As the file would be read if rows were what it stores as columns.
        for read in dict.fromkeys((own, other, crosswise, replace(crosswise, flip_rows=True))):
            for turned in (_transposed, _turned):
                yield _Reading(
                    "transposed", read, turned, True, "their rows and columns are exchanged"
                )
    for shape in _other_shapes(frame, kind):
        for flip in (True, False):
            geometry = replace(shape, flip_rows=flip)
            yield _Reading(
                "geometry", geometry, _same, False, f"another geometry fits: {_give(geometry)}"
            )


def _give(geometry: SpikeGeometry) -> str:
    return f"give --geometry {geometry.describe()}"


def _mirrored(image: Plane) -> Plane:
    return image[:, ::-1]


def _transposed(image: Plane) -> Plane:
    return image.T


def _turned(image: Plane) -> Plane:
    return image.T[:, ::-1]


def _other_shapes(frame: FrameAt, kind: ReferenceKind) -> Iterator[SpikeGeometry]:
    """Yield geometries that the frames' size or a camera suggests, each once."""
    own = frame.spikes.geometry
    path: Path | None = frame.image(kind)
    assert path is not None
    height, width = image_shape(path)
    seen = {(own.height, own.width, own.drop_columns)}
    sizes = [
        SpikeGeometry(height=height // k, width=width // k, flip_rows=True)
        for k in _SCALES
        if height // k * (width // k) >= 64
    ]
    for geometry in [*sizes, *(preset.geometry for preset in PRESETS.values())]:
        key = geometry.height, geometry.width, geometry.drop_columns
        if key not in seen:
            seen.add(key)
            yield geometry
