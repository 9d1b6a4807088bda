"""What is wrong with spikes that do not look like their frames: orientation, geometry, or owner.

The spikes are read in another row order, mirrored, transposed and in other geometries, and those
of other sequences are tried. Each reading is searched for its best lag, and named if it fits
clearly better than the spikes as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ....errors import SpikeDeblurError
from ...frames.images import image_shape
from ...spikes.dat import SpikeFile
from ...spikes.geometry import SpikeGeometry
from ...spikes.infer import neighbour_correlation
from ...spikes.presets import PRESETS
from ..manifest import Problem, ReferenceKind, Verification
from ..verification import FRAMES_OF_KIND
from .lag import Match, find_lag
from .sliding import Plane, Reference
from .verify import LIKELY, FrameAt, read_luminance, search_range, sharp_widths, spread

_FRAMES = 3
"""Frames of a sequence that are compared."""
_CLEARLY = 0.1
"""Correlation by which a reading must be better than the spikes as they are."""
_ENOUGH = 0.5
"""Least correlation of a reading that is named."""
_SAMPLES = 200
"""Samples in which neighbouring pixels are compared."""
_MIN_ALIKE = 0.1
"""Correlation of neighbouring pixels below which a geometry shears the picture."""
_SCALES = (1, 2, 3, 4, 8)
"""Sizes of a frame over that of its spikes that are tried."""


@dataclass(frozen=True, slots=True)
class _Reading:
    problem: Problem
    geometry: SpikeGeometry
    words: str
    """What the reading shows, for the warning; the correlation follows in brackets."""
    ending: str = ""
    """End of the warning, behind the correlation."""
    mirrored: bool = False
    transposed: bool = False

    def turned(self, image: Plane) -> Plane:
        """Return an upright image as the reading shows it."""
        image = image.T if self.transposed else image
        return np.ascontiguousarray(image[:, ::-1] if self.mirrored else image)


def name_suspect(frames: list[FrameAt], measured: Verification) -> Verification:
    """Return `measured`, with the orientation or geometry that fits clearly better, if one does."""
    if measured.correlation >= LIKELY or measured.problem == "flat":
        return measured
    readings = _readings(frames[0], measured.by)
    return _name_best(measured, ((frames, reading) for reading in readings))


def name_owner(
    frames: list[FrameAt], measured: Verification, others: Iterable[tuple[str, list[FrameAt]]]
) -> Verification:
    """Return `measured`, with the sequence whose spikes fit clearly better, if one's do.

    Args:
        frames: exposures of the sequence.
        measured: lag of its own spikes.
        others: names and exposures of sequences whose files may have been exchanged with its own.
    """
    geometry = frames[0].spikes.geometry

    def borrowed() -> Iterator[tuple[list[FrameAt], _Reading]]:
        for name, (other, *_) in others:
            if other.spikes.geometry.shape == geometry.shape:
                words = f"the spikes of {name} fit these frames"
                reading = _Reading("swapped", geometry, words, ": files are swapped")
                yield [replace(f, spikes=other.spikes, clock=other.clock) for f in frames], reading

    return _name_best(measured, borrowed())


def _name_best(
    measured: Verification, tried: Iterable[tuple[list[FrameAt], _Reading]]
) -> Verification:
    """Return `measured`, with the reading that fits best, if it fits clearly better."""
    best, peak = None, max(_ENOUGH, measured.correlation + _CLEARLY)
    for frames, reading in tried:
        match = _search(frames, measured.by, reading)
        if match is not None and match.peak > peak:
            best, peak = reading, match.peak
    if best is None:
        return measured
    warning = (
        f"spikes and {FRAMES_OF_KIND[measured.by]} do not look alike (correlation "
        f"{measured.correlation:.2f} at best); {best.words} ({peak:.2f}){best.ending}"
    )
    return measured.model_copy(
        update={"problem": best.problem, "warning": warning, "confident": False, "confidence": 0.0}
    )


def _search(frames: list[FrameAt], kind: ReferenceKind, reading: _Reading) -> Match | None:
    geometry = reading.geometry
    other = geometry != frames[0].spikes.geometry
    if other and not _is_picture(frames[0], geometry):
        return None
    upright = geometry.shape[::-1] if reading.transposed else geometry.shape
    references = []
    for frame in spread([frame for frame in frames if frame.has(kind)], _FRAMES):
        spikes = _read_as(frame, geometry) if other else frame.spikes
        image = reading.turned(read_luminance(frame.image(kind), upright))
        widths = (frame.samples,) if kind == "blur" else sharp_widths(frame.samples)[-3:]
        references.append(Reference(image=image, spikes=spikes, at=frame.at, widths=widths))
    return find_lag(references, *search_range(frames[0].samples))


def _read_as(frame: FrameAt, geometry: SpikeGeometry) -> SpikeFile:
    return SpikeFile.open(frame.spikes.path, geometry, frame.cut)


def _is_picture(frame: FrameAt, geometry: SpikeGeometry) -> bool:
    """Whether the file holds whole frames of this geometry, in which neighbours are alike."""
    try:
        read = _read_as(frame, geometry)
    except SpikeDeblurError:
        return False
    start, stop = read.whole
    counts = read.counts(1, start, min(stop, start + _SAMPLES))[0]
    return neighbour_correlation(counts.astype(np.float32)) >= _MIN_ALIKE


def _readings(frame: FrameAt, kind: ReferenceKind) -> Iterator[_Reading]:
    stated = frame.spikes.geometry
    other = replace(stated, flip_rows=not stated.flip_rows)
    give = f"give --geometry {other.describe()}"
    yield _Reading("rows flipped", other, f"their rows are the other way up: {give}")
    yield _Reading("columns flipped", stated, "they are mirrored from left to right", mirrored=True)
    yield _Reading("rotated", other, "they are turned by 180 degrees", mirrored=True)
    if not stated.drop_columns:
        crosswise = SpikeGeometry(
            height=stated.width, width=stated.height, flip_rows=False, pad_frames=stated.pad_frames
        )
        words = "their rows and columns are exchanged"
        # Crosswise: as if the file's columns were its rows.
        for read in dict.fromkeys((stated, other, crosswise, replace(crosswise, flip_rows=True))):
            for mirrored in (False, True):
                yield _Reading("transposed", read, words, mirrored=mirrored, transposed=True)
    for shape in _other_shapes(frame, kind):
        for flip in (True, False):
            geometry = replace(shape, flip_rows=flip)
            words = f"another geometry fits: give --geometry {geometry.describe()}"
            yield _Reading("geometry", geometry, words)


def _other_shapes(frame: FrameAt, kind: ReferenceKind) -> list[SpikeGeometry]:
    """Return geometries that the frames' size or a preset suggests, each once."""
    stated = frame.spikes.geometry
    height, width = image_shape(frame.image(kind))
    sizes = [
        SpikeGeometry(height=height // k, width=width // k, flip_rows=True)
        for k in _SCALES
        if height // k * (width // k) >= 64
    ]
    seen: dict[object, SpikeGeometry] = {}
    for geometry in [stated, *sizes, *(preset.geometry for preset in PRESETS.values())]:
        seen.setdefault((geometry.height, geometry.width, geometry.drop_columns), geometry)
    return list(seen.values())[1:]
