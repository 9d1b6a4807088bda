"""`make bench`: each figure beside its bar and the machine it was measured on; exit code 1 below.

Bars are ratios of what the same run measured, against the best plain way that we know, or counts of
bytes, requests and files: no machine is too slow for them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import tracemalloc
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from spikedeblur.pipeline.spikes import SpikeFile, SpikeGeometry, count_spikes
from spikedeblur.pipeline.spikes.dat import pack_spikes

from . import align, jobs, light, peers, store, streaming, transfer
from .figures import Figure, fastest

BINS = 32

REALDATA = Path(__file__).parents[3] / "shared/realdata"
"""Recordings that are not part of the project; without them their figures are left out."""


def kernel(
    size: tuple[int, int, int],
    bar: float,
    repeats: int,
    crop_bar: float | None = None,
    most_memory: float = 1.25,
) -> list[Figure]:
    """Counting packed spikes against the plain way at its best, and the memory that it takes."""
    frames, height, width = size
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
    rng = np.random.default_rng(0)
    packed = pack_spikes(rng.random(size, np.float32) < 0.25, geometry)

    def plain() -> np.ndarray:
        return store.plain_counts(packed.reshape(frames, -1), BINS, height, width)

    def ours() -> np.ndarray:
        return count_spikes(packed, geometry, BINS)

    def crop() -> np.ndarray:
        return count_spikes(packed, geometry, BINS, rows=(40, 168), columns=(101, 229))

    def plain_crop() -> np.ndarray:
        whole_bytes = packed.reshape(frames, height, -1)[:, height - 168 : height - 40, 12:29]
        rows = np.ascontiguousarray(whole_bytes).reshape(frames, -1)
        return store.plain_counts(rows, BINS, 128, 136)[:, :, 5:133]

    output = ours()
    np.testing.assert_array_equal(output, plain())
    np.testing.assert_array_equal(crop(), plain_crop())
    actions = {"plain": plain, "ours": ours, "copy": output.copy, "crop": crop}
    actions["plain crop"] = plain_crop
    times = fastest(actions, repeats)
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    name = f"{frames}x{height}x{width}"
    return [
        Figure(
            f"count {name}",
            times["plain"] / times["ours"],
            "x as fast as unpackbits and a sum, by bin",
            bar,
            f"{times['ours'] * 1e3:.1f} ms; copying the output takes {times['copy'] * 1e3:.1f} ms",
        ),
        Figure(
            f"count a 128x128 crop of {name}",
            times["plain crop"] / times["crop"],
            "x as fast as the same of its bytes",
            crop_bar,
            f"{times['crop'] * 1e3:.2f} ms",
        ),
        Figure(
            f"count {name}, memory",
            peak / output.nbytes,
            "times the output, which is in it",
            most_memory,
            at_most=True,
        ),
    ]


def decoding(folder: Path) -> list[Figure]:
    """TFP and decoding of a file's window against the plain ways."""
    frames, height, width = 88, 360, 640
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
    rng = np.random.default_rng(0)
    packed = pack_spikes(rng.random((frames, height, width), np.float32) < 0.25, geometry)
    packed.tofile(folder / "spike.dat")
    file = SpikeFile.open(folder / "spike.dat", geometry)

    def unpack() -> np.ndarray:
        return np.unpackbits(packed, bitorder="little").reshape(frames, height, width)[:, ::-1]

    def mean() -> np.ndarray:
        return store.plain_counts(packed.reshape(frames, -1), 1, height, width)[0] / np.float32(
            frames
        )

    np.testing.assert_array_equal(file.read(), unpack())
    np.testing.assert_allclose(file.tfp(), mean(), rtol=1e-5)
    times = fastest(
        {
            "mean": mean,
            "tfp": file.tfp,
            "copy": lambda: np.ascontiguousarray(unpack()),
            "read": file.read,
            "crop": lambda: file.read(0, frames, (100, 228), (101, 229)),
        },
        9,
    )
    size = f"{frames}x{height}x{width}"
    return [
        Figure(
            f"TFP {size}",
            times["mean"] / times["tfp"],
            "x as fast as unpackbits and a sum",
            0.5,
            f"{times['tfp'] * 1e3:.1f} ms",
        ),
        Figure(
            f"decode {size}, upright",
            times["copy"] / times["read"],
            "x as fast as unpackbits and a copy",
            0.7,
            f"{times['read'] * 1e3:.1f} ms; a 128x128 crop {times['crop'] * 1e3:.1f} ms",
        ),
    ]


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    began = time.perf_counter()
    figures = [
        *kernel((88, 360, 640), bar=0.8, repeats=40, crop_bar=0.5),
        *kernel((257, 180, 320), bar=0.8, repeats=40, most_memory=1.35),
        *kernel((301, 250, 400), bar=0.8, repeats=40),
        *kernel((1000, 1000, 1000), bar=0.7, repeats=3),
        *light.all_figures(),
    ]
    shared = Path("/dev/shm")
    in_memory = shared if shared.is_dir() else None
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory(dir=in_memory) as memory,
    ):
        folder = Path(name)
        manifest = store.record(folder / "recording")
        figures += decoding(folder)
        figures += store.figures(folder, manifest)
        figures += peers.crops(folder)
        figures += peers.streams(folder / "streams", manifest)
        figures += streaming.figures(folder / "packed.zarr")
        figures += transfer.figures(folder, "packed.zarr")
        figures += jobs.figures(folder, manifest, Path(memory))
        figures += align.figures(folder / "align")
        if REALDATA.is_dir():
            figures += store.real_recordings(folder / "real", REALDATA)
    seconds = time.perf_counter() - began
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, NumPy {np.__version__}; {seconds:.0f} s"
    )
    for figure in figures:
        print(figure.line())
    print(peers.missing())
    if options.json:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        report = [asdict(figure) | {"passed": figure.passed} for figure in figures]
        content = {"machine": machine, "seconds": seconds, "figures": report}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
