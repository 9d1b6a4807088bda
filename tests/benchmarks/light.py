"""What light of spikes costs beside counts of them, made by NumPy and by numba.

`python -m tests.benchmarks.light` prints these alone.
"""

from __future__ import annotations

import sys
import tracemalloc
from unittest.mock import patch

import numpy as np

from spikedeblur.pipeline.spikes import SpikeGeometry, count_spikes, intervals
from spikedeblur.pipeline.spikes.dat import pack_spikes

from .figures import Figure, fastest

BINS, SAMPLES = 32, 257


def figures(
    size: tuple[int, int], beside: int, most: float, most_by_numba: float, repeats: int
) -> list[Figure]:
    """Measure light of one exposure, of packed spikes in rows bottom-up.

    Args:
        size: rows and columns.
        beside: samples on both sides of the exposure.
        most: bar of the time by NumPy, in that of counting.
        most_by_numba: bar of the time by numba, in that by NumPy.
        repeats: turns.
    """
    height, width = size
    samples = SAMPLES + 2 * beside
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
    rng = np.random.default_rng(0)
    spikes = rng.random((samples, height, width), np.float32) < 0.25
    packed = pack_spikes(spikes, geometry)
    exposure, known = (beside, beside + SAMPLES), (0, samples)

    def count() -> np.ndarray:
        return count_spikes(packed, geometry, BINS, *exposure)

    def compiled() -> np.ndarray:
        half = np.empty((BINS, height, width), np.float16)
        return intervals.light_of_packed(packed, geometry, BINS, exposure, known, out=half)

    def by_numpy() -> np.ndarray:
        with patch.object(intervals, "compiled", lambda: None):
            return compiled()

    actions = {"count": count, "numpy": by_numpy}
    if intervals.compiled() is not None:
        actions["numba"] = compiled
    output = by_numpy()
    for action in actions.values():
        if action is not count:
            np.testing.assert_array_equal(action(), output)
    times = fastest(actions, repeats)
    tracemalloc.start()
    by_numpy()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pixels = height * width
    name = f"light {samples}x{height}x{width}"
    found = [
        Figure(
            f"{name}, NumPy",
            times["numpy"] / times["count"],
            "x the time to count its exposure",
            most,
            f"{1e9 * times['numpy'] / pixels:.0f} ns a pixel",
            at_most=True,
        ),
        Figure(
            f"{name}, memory",
            (peak - output.nbytes) / pixels / samples,
            "bytes a pixel and sample, beside output",
            detail=f"{peak / 2**20:.0f} MB",
        ),
    ]
    if "numba" in times:
        found.append(
            Figure(
                f"{name}, numba",
                times["numba"] / times["numpy"],
                "x the time by NumPy",
                most_by_numba,
                f"{1e9 * times['numba'] / pixels:.0f} ns a pixel, "
                f"{times['numba'] / times['count']:.1f} x the time to count",
                at_most=True,
            )
        )
    return found


def all_figures() -> list[Figure]:
    """Measure a whole frame without samples beside it, and a crop with them."""
    return [
        *figures((360, 640), 0, most=14, most_by_numba=0.6, repeats=5),
        *figures((128, 128), 64, most=14, most_by_numba=0.6, repeats=30),
    ]


if __name__ == "__main__":
    results = all_figures()
    for figure in results:
        print(figure.line())
    sys.exit(not all(figure.passed for figure in results))
