"""Random geometries and streams, and what the format says of them in the plainest words."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from spikedeblur.pipeline.spikes import SpikeGeometry
from spikedeblur.pipeline.spikes.stream import SpikeStream


def packed(file: SpikeStream, start: int, stop: int) -> np.ndarray:
    """Return samples [start, stop), (T, H, ceil(W / 8)) uint8."""
    height, width = file.geometry.shape
    out = np.empty((stop - start, height, -(-width // 8)), np.uint8)
    file.packed(start, stop, out)
    return out


@st.composite
def geometries(draw, max_side: int = 21, drop: bool = True) -> SpikeGeometry:
    height = draw(st.integers(1, max_side))
    width = draw(st.integers(max(1, -(-8 // height)), max_side))
    ranges: tuple[tuple[int, int], ...] = ()
    if drop and width > 3 and draw(st.booleans()):
        start = draw(st.integers(0, width - 2))
        ranges = ((start, draw(st.integers(start + 1, width - (start == 0)))),)
    return SpikeGeometry(
        height=height,
        width=width,
        flip_rows=draw(st.booleans()),
        pad_frames=draw(st.booleans()),
        drop_columns=ranges,
    )


@st.composite
def streams(draw, max_frames: int = 40, **kind) -> tuple[SpikeGeometry, np.ndarray]:
    """A geometry and upright spikes (T, H, W) uint8 of 0/1."""
    geometry = draw(geometries(**kind))
    frames = draw(st.integers(1, max_frames))
    seed = draw(st.integers(0, 2**32 - 1))
    density = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    rng = np.random.default_rng(seed)
    return geometry, (rng.random((frames, *geometry.shape)) < density).astype(np.uint8)


@st.composite
def spans(draw, size: int) -> tuple[int, int]:
    start = draw(st.integers(0, size - 1))
    return start, draw(st.integers(start + 1, size))


def plain_bits(packed: np.ndarray, geometry: SpikeGeometry) -> np.ndarray:
    """Decode (T, H, W) one pixel at a time from the words of the format's description."""
    n_frames = geometry.count_frames(packed.size)
    out = np.zeros((n_frames, *geometry.shape), np.uint8)
    dropped = {c for start, stop in geometry.drop_columns for c in range(start, stop)}
    kept = [c for c in range(geometry.width) if c not in dropped]
    for t in range(n_frames):
        for row in range(geometry.height):
            stored_row = geometry.height - 1 - row if geometry.flip_rows else row
            for x, column in enumerate(kept):
                bit = t * geometry.frame_bits + stored_row * geometry.width + column
                out[t, row, x] = packed[bit // 8] >> (bit % 8) & 1
    return out


def plain_counts(spikes: np.ndarray, bins: int) -> np.ndarray:
    """Count spikes (T, H, W) by the definition: sample j of N is in bin floor(j K / N)."""
    counts = np.zeros((bins, *spikes.shape[1:]), np.int64)
    for j, frame in enumerate(spikes):
        counts[j * bins // len(spikes)] += frame
    return counts
