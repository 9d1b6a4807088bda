"""`python -m tests.benchmarks.sensor`: what unequal pixels cost, and what `calibrate` gives back.

Three scenes of 128x128 with spikes of half that size, by an ideal sensor and by one of which gains
spread by 8 %, pixels fire 0.002 times a sample in the dark, and 200 of 4,096 are hot. Its pixels
are measured in the dark and before a lamp, and from the three scenes themselves.
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
"""Most PSNR in dB that a method may lose against an ideal sensor, by dark and flat."""
MOST_LOST_BY_SCENES = {"path": 1.0, "model": 1.0}
"""The same, by recordings of moving scenes."""
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
        scenes = sorted((work / "unequal").glob(f"test_spike_2xds/**/{DAT}"))
        moving = calibrate(work / "m.zarr", recordings=scenes)
        by_scenes = read_sensor(work / "m.zarr").sensor
        cases = ((ideal, None), (unequal, None), (unequal, "s.zarr"), (unequal, "m.zarr"))
        best, without, corrected, by_motion = (
            evaluate(
                store,
                run=small,
                methods=METHODS,
                how=Evaluating(sensor=None if sensor is None else work / sensor),
            ).methods
            for store, sensor in cases
        )
    error = float((found.gain - truth.gain)[~truth.hot].std())
    missed = int(np.count_nonzero(found.hot != truth.hot))
    figures = [
        Figure("error of the gains", 100 * error, "%", 100 * MOST_ERROR, at_most=True),
        Figure("hot pixels missed, or taken for hot", missed, "pixels", 0, at_most=True),
    ]
    good = ~(by_scenes.hot | truth.hot)
    error = float((by_scenes.gain - truth.gain)[good].std())
    told = f"{moving.error:.1%} by its own word" if moving.error is not None else ""
    figures.append(Figure("error of the gains, by scenes", 100 * error, "%", None, told))
    missed = int(np.count_nonzero(truth.hot & ~by_scenes.hot))
    figures.append(Figure("hot pixels missed, by scenes", missed, "pixels", None))
    wrong = int(np.count_nonzero(by_scenes.hot & ~truth.hot))
    figures.append(Figure("good pixels taken for hot, by scenes", wrong, "pixels", None))
    for method in METHODS:
        scores = [by[method].psnr for by in (best, without, corrected, by_motion)]
        told = "ideal {:.2f}, unequal {:.2f}, corrected {:.2f}, by scenes {:.2f}".format(*scores)
        lost, bar = scores[0] - scores[2], MOST_LOST.get(method)
        figures.append(Figure(f"{method}, lost", lost, "dB", bar, told, at_most=True))
        lost, bar = scores[0] - scores[3], MOST_LOST_BY_SCENES.get(method)
        figures.append(Figure(f"{method}, lost by scenes", lost, "dB", bar, at_most=True))
    for figure in figures:
        print(figure.line(2))
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
