"""`python -m tests.benchmarks.path_cost`: the CPU time and memory that `path` takes for a frame.

Each run is a process of its own, on one thread, that restores a small frame first, so that all code
is loaded: a frame alone, of 257 samples, and one between two others, of 65 samples each. Stages are
printed without the stages that they call. With `--against FOLDER`, runs of this checkout and of
another take turns, and medians are compared, which on a busy machine tell nothing finer than a
sixth: equal code came to 0.94 to 1.17 by medians, 0.98 to 1.03 by the fastest runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .figures import Figure

CHECKOUT = Path(__file__).resolve().parents[2]
SIZES = ((192, 192), (720, 1280))
"""(H, W) of frames, in pixels; spikes are half as large."""
MOST_GB = 2.0
"""Most memory of a process beside what it imports."""
BESIDE = 1 / 4
"""Share of an exposure in which spikes are recorded before the first one and after the last."""
ALONE, AMONG = (1, 257), (3, 65)
"""Number of exposures, of which the middle one is restored, and samples of each."""
STAGES = {
    "reading spikes as light": ("pipeline.methods.inputs", "InputReader.read"),
    "motion in a window": ("model.neighbours", "motion"),
    "what spikes tell": ("model.motion_deblur", "told_by_spikes"),
    "light along paths": ("model.motion_deblur", "along_motion"),
    "ways into neighbours": ("model.motion_deblur", "ways_into"),
    "ways back, at half the size": ("model.path_sums", "sources_of"),
    "the same, enlarged": ("model.path_sums", "enlarged_sources"),
    "putting sums together": ("model.corrections", "Explanation.__init__"),
    "sums along paths": ("model.corrections", "PathSums.__call__"),
    "the rest of corrections": ("model.motion_deblur", "corrected"),
    "colours, the middle": ("model.motion_deblur", "_in_colours_of"),
    "the same, by spikes": ("model.motion_deblur", "as_seen"),
}
"""Module and name of what takes time, by what it does."""
REST = "the rest"


def measured(package: Path, size: tuple[int, int], exposures: tuple[int, int]) -> dict[str, Any]:
    """Return CPU seconds, those of stages, and peak bytes of a process that restores a frame."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spikedeblur").symlink_to(package)
        numbers = map(str, (*size, *exposures))
        command = [sys.executable, "-m", "tests.benchmarks.path_cost", "--one", *numbers]
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one(size: tuple[int, int], exposures: tuple[int, int]) -> dict[str, Any]:
    """Restore a frame in this process; see `measured`."""
    from spikedeblur.pipeline.methods.contract import MethodClip
    from spikedeblur.pipeline.methods.path import PathMethod

    imported = _peak()
    number = exposures[0]
    clip = MethodClip(0, number, number // 2, number // 2 + 1)
    PathMethod()(_recording((64, 64), *exposures), clip)
    windows = _recording(size, *exposures)
    stages = Stages()
    began = time.process_time()
    stages.timed(REST, PathMethod().__call__)(windows, clip)
    seconds = time.process_time() - began
    return {"seconds": seconds, "stages": stages.seconds, "bytes": _peak() - imported}


class Stages:
    """CPU seconds of stages, each without those that it calls."""

    def __init__(self) -> None:
        """Have all `STAGES` of this process timed from now on, wherever they are imported."""
        self.seconds = dict.fromkeys([*STAGES, REST], 0.0)
        self._inner = [0.0]
        ours = [module for name, module in sys.modules.items() if name.startswith("spikedeblur.")]
        for stage, (module, name) in STAGES.items():
            owner = sys.modules[f"spikedeblur.{module}"]
            for part in name.split(".")[:-1]:
                owner = getattr(owner, part)
            last = name.rpartition(".")[2]
            plain = getattr(owner, last)
            timed = self.timed(stage, plain)
            setattr(owner, last, timed)
            for module in ours:
                if getattr(module, last, None) is plain:
                    setattr(module, last, timed)

    def timed(self, stage: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is timed as this stage."""

        def timed(*args: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            began = time.process_time()
            try:
                return plain(*args, **named)
            finally:
                taken = time.process_time() - began
                self.seconds[stage] += taken - self._inner.pop()
                self._inner[-1] += taken

        return timed


@dataclass
class Windows:
    """Blurred frames in a row, and the spikes of all."""

    frames: np.ndarray
    """(N, H, W, 3) uint8."""
    recorded: np.ndarray
    """(samples, h, w) uint8, those beside the exposures included."""
    number: int
    """Samples of an exposure."""
    bins: int = 32
    seq: str = "blots"
    gain: float | None = None
    windows_are_raw: bool = True
    is_remote: bool = False
    has_spikes: bool = True

    length = property(lambda self: len(self.frames))
    frame_shape = property(lambda self: self.frames.shape[1:3])
    voxel_shape = property(lambda self: self.recorded.shape[1:])
    samples = property(lambda self: np.full(self.length, self.number))
    t0 = property(lambda self: self.number * np.arange(self.length, dtype=np.float64))
    t1 = property(lambda self: self.t0 + self.number - 1)

    def blur(self, start: int, stop: int, rows: None = None, columns: None = None) -> np.ndarray:
        return self.frames[start:stop]

    def voxels(self, start: int, stop: int, rows: None = None, columns: None = None) -> np.ndarray:
        from spikedeblur.pipeline.spikes import spike_to_voxel

        spikes = (self.spikes_beside(window, 0)[0] for window in range(start, stop))
        return np.stack([spike_to_voxel(one, self.bins) for one in spikes]).astype(np.uint8)

    def spikes_beside(
        self,
        window: int,
        beside: int,
        rows: tuple[int, int] | None = None,
        columns: None = None,
    ) -> tuple[np.ndarray, int]:
        start = int(BESIDE * self.number) + window * self.number
        first, last = max(0, start - beside), min(start + self.number + beside, len(self.recorded))
        return np.ascontiguousarray(self.recorded[first:last, slice(*(rows or (None,)))]), (
            start - first
        )


def _recording(size: tuple[int, int], exposures: int, samples: int) -> Windows:
    """Return exposures of blots that move by 20 pixels in each."""
    from spikedeblur.pipeline.spikes.camera import SpikeCamera

    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    beside = int(BESIDE * samples)
    middle = beside + exposures * samples / 2

    def frame(sample: int, every: int = 1) -> np.ndarray:
        x = columns[::every, ::every] + 20 / samples * (sample - middle)
        return np.float32(0.5) + np.float32(0.4) * np.sin(x / 4) * np.cos(
            rows[::every, ::every] / 5
        )

    blurred = []
    for first in range(beside, beside + exposures * samples, samples):
        mean = sum(frame(sample) for sample in range(first, first + samples, 8)) / len(
            range(0, samples, 8)
        )
        blurred.append(np.rint(255 * mean).astype(np.uint8)[..., None].repeat(3, -1))
    number = exposures * samples + 2 * beside
    camera = SpikeCamera().record((frame(i, 2) for i in range(number)), np.random.default_rng(0))
    spikes = np.empty((number, size[0] // 2, size[1] // 2), np.uint8)
    for sample, fired in enumerate(camera):
        spikes[sample] = fired
    return Windows(np.stack(blurred), spikes, samples)


def _peak() -> int:
    """Return the most bytes that this process has held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.path_cost")
    parser.add_argument("--against", type=Path, help="another checkout, timed in turns with this")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(tuple(options.one[:2]), tuple(options.one[2:]))))
        return 0
    packages = {"ours": CHECKOUT}
    if options.against:
        packages["theirs"] = options.against.resolve(strict=True)
    figures = []
    for size, exposures in itertools.product(SIZES, (ALONE, AMONG)):
        runs = [
            {
                name: measured(packages[name], size, exposures)
                for name in sorted(packages, reverse=turn % 2 == 1)
            }
            for turn in range(options.repeats)
        ]
        taken = {name: [run[name]["seconds"] for run in runs] for name in packages}
        seconds = {name: statistics.median(times) for name, times in taken.items()}
        peak = max(run["ours"]["bytes"] for run in runs) / 1e9
        what = f"path, {size[1]}x{size[0]}, {'alone' if exposures == ALONE else 'among others'}"
        new = [
            Figure(f"{what}, time", seconds["ours"], "CPU s"),
            Figure(f"{what}, memory", peak, "GB", MOST_GB, at_most=True),
        ]
        if options.against:
            ratio = seconds["ours"] / seconds["theirs"]
            least = min(taken["ours"]) / min(taken["theirs"])
            detail = f"{seconds['theirs']:.2f} CPU s there; {least:.2f} by the fastest of each"
            new.append(Figure(f"{what}, time", ratio, "of the other's", 1.0, detail, True))
        figures += new
        print("\n".join(figure.line() for figure in new))
        for stage in [*STAGES, REST]:
            each = {
                name: statistics.median(run[name]["stages"][stage] for run in runs)
                for name in packages
            }
            there = f", {1000 * each['theirs']:.0f} there" if options.against else ""
            print(f"    {stage}: {1000 * each['ours']:.0f} ms{there}", flush=True)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
