"""`python -m tests.benchmarks.sizes`: what spikes cost whose size is no divisor of the frame's.

Three scenes of 96x128, recorded by spike cameras of several sizes that see the whole frame. What
is judged is the loss against spikes of half the frame's size, of which 45x67 has about as many.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.evaluate import evaluate
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.find import find_model

from .figures import Figure

FRAMES = (96, 128)
WHOLE = (48, 64)
OTHERS = {
    (45, 67): "as many pixels",
    (50, 80): "as 250x400 with 480x640",
    (53, 64): "as 396x640 with 720x1280",
    (48, 45): "as 360x448 with 720x1280",
    (96, 96): "finer one way",
    (128, 160): "finer both ways",
}
METHODS = ("sdm", "path", "model")
MOST_LOST = 0.4
"""Most PSNR in dB that path and small may lose where there are as many pixels."""


def record(folder: Path, size: tuple[int, int], scenes: int) -> Path:
    """Record the scenes with spikes of a size into a store."""
    clips = scene_clips("test", scenes, FRAMES, 65)
    simulate(folder, clips, Rig(spike_size=size), workers=1)
    manifest = folder / "manifest.json"
    align(folder, "x4k1000fps", log=folder / "log.txt", manifest=manifest)
    voxelize_manifest(manifest, folder / "d.zarr", VoxelizeOptions(), Workers(count=1))
    return folder / "d.zarr"


def main(scenes: int = 3) -> int:
    """Measure, print and judge."""
    small, scores = find_model("small"), {}
    with tempfile.TemporaryDirectory() as name:
        for size in (WHOLE, *OTHERS):
            store = record(Path(name) / f"{size[0]}x{size[1]}", size, scenes)
            scores[size] = evaluate(store, run=small, methods=METHODS).methods
    figures = []
    for size, what in OTHERS.items():
        for method in METHODS:
            whole, own = (scores[one][method].psnr for one in (WHOLE, size))
            bar = MOST_LOST if size == (45, 67) and method != "sdm" else None
            told = f"{what}: {own:.2f}, {whole:.2f} by {WHOLE[0]}x{WHOLE[1]}"
            name = f"{method}, spikes of {size[0]}x{size[1]}, lost"
            figures.append(Figure(name, whole - own, "dB", bar, told, at_most=True))
    for figure in figures:
        print(figure.line(2))
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
