"""`python -m tests.benchmarks.sensor`: what unequal pixels cost, and what `calibrate` gives back.

Three scenes of 128x128 with spikes of half that size, by an ideal sensor and by one of which gains
spread by 8 %, pixels fire 0.002 times a sample in the dark, and 200 of 4,096 are hot.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.calibrate import calibrate
from spikedeblur.pipeline.calibrate.sensor_file import read_sensor
from spikedeblur.pipeline.evaluate import Evaluating, evaluate
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.calibration import simulate_calibration, stand_of
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.flaws import Flaws
from spikedeblur.pipeline.simulate.record import DAT
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.find import find_model

from .figures import Figure

FLAWS = Flaws(gain_spread=0.08, dark_rate=0.002, hot=200)
METHODS = ("tfp", "tfi", "sdm", "path", "model")
MOST_LOST = {"path": 0.3, "model": 0.3}
"""Most PSNR in dB that a method may lose against an ideal sensor, corrected."""
MOST_ERROR = 0.01
"""Largest standard error of the gains."""


def record(folder: Path, rig: Rig) -> Path:
    """Record the scenes into a store, and the dark and a lamp if pixels differ."""
    clips = scene_clips("test", 3, (128, 128), 65)
    simulate(folder, clips, rig, workers=1)
    stand = stand_of(folder, clips, rig)
    if stand is not None:
        simulate_calibration(folder, stand)
    manifest = folder / "manifest.json"
    align(folder, "x4k1000fps", log=folder / "log.txt", manifest=manifest)
    voxelize_manifest(manifest, folder / "d.zarr", VoxelizeOptions(), Workers(count=1))
    return folder / "d.zarr"


def main() -> int:
    """Measure, print and judge."""
    rig, small = Rig(flaws=FLAWS), find_model("small")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ideal, unequal = record(work / "ideal", Rig()), record(work / "unequal", rig)
        dark, flat = (work / "unequal/calibration" / kind / DAT for kind in ("dark", "flat"))
        calibrate(work / "s.zarr", dark=dark, flat=flat)
        found, truth = read_sensor(work / "s.zarr").sensor, FLAWS.sensor((64, 64), rig.seed)
        best, without, corrected = (
            evaluate(store, run=small, methods=METHODS, how=Evaluating(sensor=sensor)).methods
            for store, sensor in ((ideal, None), (unequal, None), (unequal, work / "s.zarr"))
        )
    error = float((found.gain - truth.gain)[~truth.hot].std())
    missed = int(np.count_nonzero(found.hot != truth.hot))
    figures = [
        Figure("error of the gains", 100 * error, "%", 100 * MOST_ERROR, at_most=True),
        Figure("hot pixels missed, or taken for hot", missed, "pixels", 0, at_most=True),
    ]
    for method in METHODS:
        scores = [by[method].psnr for by in (best, without, corrected)]
        told = "ideal {:.2f}, unequal {:.2f}, corrected {:.2f}".format(*scores)
        lost, bar = scores[0] - scores[2], MOST_LOST.get(method)
        figures.append(Figure(f"{method}, lost", lost, "dB", bar, told, at_most=True))
    for figure in figures:
        print(figure.line(2))
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
