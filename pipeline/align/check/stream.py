"""Defects of a spike camera: pixels that never fire or always do, and samples without spikes.

A pixel is compared with the 24 around it. It is dead if it never fired where they did, and hot if
it fired at every sample where they did at half of the samples at most. A dark or bright thing of
a pixel's size that stands still for the whole recording looks the same, and is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...host.pieces import HashForm, PieceHasher
from ...host.reading import open_file
from ...spikes.dat import SpikeFile

BLOCK_BYTES = 1 << 20
"""Bytes that are read at once."""

MIN_SPIKES = 20
"""Median spikes of the neighbours from which a pixel without any is dead."""

_STRIP = 64  # rows whose neighbourhoods are held at once

Sums = npt.NDArray[np.int64]


@dataclass(slots=True)
class SpikeSums:
    """Sums over all of a sequence's spikes."""

    spikes: Sums
    """Spikes of each pixel, (H, W); zeros before the first file."""
    samples: int = 0
    """Samples that were read."""
    empty_samples: int = 0
    """Samples in which no pixel fired; counted only where samples begin on whole bytes."""

    def add(self, file: SpikeFile, form: HashForm = HashForm()) -> str:  # noqa: B008  # frozen
        """Add a file, or the part of it that may be read, once in blocks, and return its hash."""
        start, stop = _range(file)
        digest = PieceHasher(form, file.place(start, stop)[0])
        for part, content in _blocks(file):
            digest.update(content)
            bins = -(-part.n_frames // 255)
            self.spikes += part.counts(bins).sum(axis=0, dtype=np.int64)
            frame_bytes, spare = divmod(part.geometry.frame_bits, 8)
            if part.encoding == "packed" and not spare:
                frames = part.data.reshape(part.n_frames, frame_bytes)
                self.empty_samples += int((~frames.any(axis=1)).sum())
        self.samples += stop - start
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class BadPixels:
    """Pixels, rows and columns that say nothing of the scene, counted upright from 0."""

    dead: int
    """Dead pixels outside of dead or hot lines."""
    hot: int
    """Hot pixels outside of dead or hot lines."""
    dead_lines: tuple[str, ...]
    """Rows and columns that never fired, such as `row 17`."""
    hot_lines: tuple[str, ...]
    """Rows and columns that fired at every sample, such as `column 400`."""
    judged: float
    """Share of the pixels whose neighbours fired enough for a dead one to show."""


def find_bad_pixels(sums: SpikeSums) -> BadPixels:
    """Return the pixels and lines that never fired or always did, unlike their neighbours."""
    spikes, samples = sums.spikes, sums.samples
    dead_lines, hot_lines = [], []
    judged = np.ones(spikes.shape, np.bool_)
    for axis, name in ((1, "row"), (0, "column")):
        totals = spikes.sum(axis=axis)
        most = samples * spikes.shape[axis]
        around = np.pad(totals, 1, mode="reflect") if len(totals) > 1 else np.zeros(3)
        least, largest = np.minimum(around[:-2], around[2:]), np.maximum(around[:-2], around[2:])
        dead = (totals == 0) & (least >= MIN_SPIKES * spikes.shape[axis] / 4)
        hot = (totals == most) & (largest <= most / 2) & (samples >= MIN_SPIKES)
        dead_lines += [f"{name} {i}" for i in np.flatnonzero(dead)]
        hot_lines += [f"{name} {i}" for i in np.flatnonzero(hot)]
        judged &= ~(dead | hot)[(slice(None), None) if axis == 1 else (None, slice(None))]
    usual = neighbour_median(spikes)
    dead_pixels = (spikes == 0) & (usual >= MIN_SPIKES) & judged
    hot_pixels = (spikes == samples) & (usual <= samples / 2) & judged & (samples >= MIN_SPIKES)
    return BadPixels(
        dead=int(dead_pixels.sum()),
        hot=int(hot_pixels.sum()),
        dead_lines=tuple(dead_lines),
        hot_lines=tuple(hot_lines),
        judged=float((usual >= MIN_SPIKES).mean()),
    )


def neighbour_median(values: Sums) -> npt.NDArray[np.float32]:
    """Return the median of the 24 pixels around each one; edges are mirrored."""
    height, width = values.shape
    padded = np.pad(values.astype(np.float32), 2, mode="symmetric")
    out = np.empty((height, width), np.float32)
    for top in range(0, height, _STRIP):
        rows = min(_STRIP, height - top)
        around = [
            padded[top + y : top + y + rows, x : x + width]
            for y in range(5)
            for x in range(5)
            if (y, x) != (2, 2)
        ]
        out[top : top + rows] = np.median(np.stack(around), axis=0)
    return out


def _range(file: SpikeFile) -> tuple[int, int]:
    """Return the samples [start, stop) that may be read, from one that begins on a whole byte."""
    start, stop = file.whole
    packed = file.encoding == "packed" and file.geometry.frame_bits % 8
    return start - (start % 8 if packed else 0), stop


def _blocks(file: SpikeFile) -> Iterator[tuple[SpikeFile, bytes]]:
    """Yield consecutive parts of a file, of whole samples each, with their bytes."""
    # Eight samples end on a byte, whatever their size.
    eight = file.geometry.frame_bits if file.encoding == "packed" else 8 * file.geometry.pixels
    groups = max(1, BLOCK_BYTES // eight)
    start, stop = _range(file)
    first, end = file.place(start, stop)
    left = stop - start
    with open_file(file.path) as stream:
        stream.seek(first)
        while left > 0:
            n_frames = min(8 * groups, left)
            left -= n_frames
            # The last part takes the bits that fill up the file too.
            rest = -1 if file.span is None else end - stream.tell()
            content = stream.read(groups * eight if left else rest)
            data = np.frombuffer(content, np.uint8)
            yield replace(file, n_frames=n_frames, data=data, span=None), content
