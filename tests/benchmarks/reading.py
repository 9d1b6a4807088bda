"""`python -m tests.benchmarks.reading`: what a sensor and odd sizes cost those who read spikes.

One scene of 480x640 by spikes of 240x320, of which light needs no resampling, and of 250x400. Least
CPU time of reading light as a network is given it: of a whole window, as `evaluate` and `restore`
do, and of a training sample of three windows, by a loading process.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from spikedeblur.configs import load_config
from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.calibrate import calibrate
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.sequences.corrected import correct_sequences
from spikedeblur.pipeline.sequences.light import seen_by
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.calibration import simulate_calibration, stand_of
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.flaws import Flaws
from spikedeblur.pipeline.simulate.record import DAT
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.data.splits import Splits
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

from .figures import Figure, fastest

FRAMES = (480, 640)
SIZES = ((240, 320), (250, 400))
FLAWS = Flaws(gain_spread=0.08, dark_rate=0.002, hot=200)
REPEATS = 5


def record(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """Record a scene into a store; return it, and the file of its sensor, which it doesn't name."""
    rig, clips = Rig(spike_size=size, flaws=FLAWS), scene_clips("test", 1, FRAMES, 65)
    simulate(folder, clips, rig, workers=1)
    stand = stand_of(folder, clips, rig)
    assert stand is not None
    simulate_calibration(folder, stand)
    dark, flat = (folder / "calibration" / kind / DAT for kind in ("dark", "flat"))
    calibrate(folder / "s.zarr", dark=dark, flat=flat)
    manifest = folder / "manifest.json"
    align(folder, "x4k1000fps", log=folder / "log.txt", manifest=manifest)
    voxelize_manifest(manifest, folder / "d.zarr", VoxelizeOptions(), Workers(count=1))
    return folder / "d.zarr", folder / "s.zarr"


def main() -> int:
    """Measure and print."""
    logging.disable(logging.WARNING)
    config = load_config("configs/deblur/small.yaml")
    actions: dict[str, Callable[[], object]] = {}
    sizes: dict[str, float] = {}

    def add(name: str, sequence: WindowSequence, *, packed: bool = False) -> None:
        samples = Splits([sequence], [sequence], []).training_samples(config, packed=packed)
        actions[f"sample, {name}"] = partial(samples.sample, 0, 0)
        sample = samples.sample(0, 0)
        arrays = sample["spikes"] if packed else [sample["voxels"]]
        sizes[f"sample, {name}"] = sum(np.asarray(array).nbytes for array in arrays)
        if not packed:
            (light,) = seen_by(config.DATA.NORM, [sequence])
            actions[f"window, {name}"] = partial(light.voxels, 0, 1)

    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            store, sensor = record(Path(folder) / str(size[0]), size)
            words = f"{size[0]}x{size[1]}"
            (plain,), (corrected,) = (open_store(store, "test") for _ in range(2))
            correct_sequences([corrected], sensor)
            add(words, plain)
            add(f"{words}, sensor", corrected)
            if size == SIZES[0]:  # light of the other is resampled, bits are not
                add(f"{words}, packed", plain, packed=True)
        times = fastest(actions, REPEATS)
    for kind in ("window", "sample"):
        base = times[f"{kind}, {SIZES[0][0]}x{SIZES[0][1]}"]
        for name, seconds in sorted(times.items()):
            if name.startswith(kind):
                told = f"{1e3 * seconds:.0f} ms"
                if kind == "sample":
                    told += f", {sizes[name] / 1e6:.2f} MB of spikes"
                print(Figure(name, seconds / base, "of the first's CPU time", detail=told).line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
