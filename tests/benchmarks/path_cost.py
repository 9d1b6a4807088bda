"""`python -m tests.benchmarks.path_cost`: the CPU time and memory that `path` takes for a frame.

Each run is a process of its own, on one thread, that restores a small frame first, so that all code
is loaded. With `--against FOLDER`, runs of this checkout and of another take turns, and medians are
compared, which on a busy machine tell nothing finer than a sixth: equal code came to 0.94 to 1.17
by medians, 0.98 to 1.03 by the fastest runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from .figures import Figure

CHECKOUT = Path(__file__).resolve().parents[2]
SIZES = ((192, 192), (720, 1280))
"""(H, W) of frames, in pixels; spikes are half as large."""
MOST_GB = 2.0
EXPOSURE, BESIDE = 257, 65


def measured(package: Path, size: tuple[int, int]) -> dict[str, float]:
    """Return CPU seconds and peak bytes of a process that restores a frame by a package."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spikedeblur").symlink_to(package)
        command = [sys.executable, "-m", "tests.benchmarks.path_cost", "--one", *map(str, size)]
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, check=True
        )
    return json.loads(done.stdout)


def one(size: tuple[int, int]) -> dict[str, float]:
    """Restore a frame in this process; see `measured`."""
    from real_recordings import OneWindow

    from spikedeblur.pipeline.methods.contract import MethodClip
    from spikedeblur.pipeline.methods.path import PathMethod

    imported = _peak()
    path, clip = PathMethod(), MethodClip(0, 1, 0, 1)
    path(OneWindow(*_recording((64, 64)), EXPOSURE), clip)
    window = OneWindow(*_recording(size), EXPOSURE)
    began = time.process_time()
    path(window, clip)
    return {"seconds": time.process_time() - began, "bytes": _peak() - imported}


def _recording(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a blurred frame (H, W, 3) and spikes (samples, h, w) of blots that move 20 pixels."""
    from real_recordings import MIDDLE

    from spikedeblur.pipeline.spikes.camera import SpikeCamera

    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)

    def frame(sample: int, every: int = 1) -> np.ndarray:
        x = columns[::every, ::every] + 20 / EXPOSURE * (sample - MIDDLE)
        return np.float32(0.5) + np.float32(0.4) * np.sin(x / 4) * np.cos(
            rows[::every, ::every] / 5
        )

    exposure = range(MIDDLE - EXPOSURE // 2, MIDDLE + EXPOSURE // 2 + 1)
    blurred = sum(frame(sample) for sample in exposure[::8]) / len(exposure[::8])
    samples = range(exposure[-1] + BESIDE)
    camera = SpikeCamera().record((frame(i, 2) for i in samples), np.random.default_rng(0))
    spikes = np.empty((len(samples), size[0] // 2, size[1] // 2), np.uint8)
    for sample, fired in enumerate(camera):
        spikes[sample] = fired
    return np.rint(255 * blurred).astype(np.uint8)[..., None].repeat(3, -1), spikes


def _peak() -> int:
    """Return the most bytes that this process has held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.path_cost")
    parser.add_argument("--against", type=Path, help="another checkout, timed in turns with this")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(tuple(options.one))))
        return 0
    packages = {"ours": CHECKOUT}
    if options.against:
        packages["theirs"] = options.against.resolve(strict=True)
    figures = []
    for size in SIZES:
        runs = [
            {name: measured(packages[name], size) for name in sorted(packages, reverse=turn % 2)}
            for turn in range(options.repeats)
        ]
        taken = {name: [run[name]["seconds"] for run in runs] for name in packages}
        seconds = {name: statistics.median(times) for name, times in taken.items()}
        peak = max(run["ours"]["bytes"] for run in runs) / 1e9
        what = f"path, {size[1]}x{size[0]}"
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
        print("\n".join(figure.line() for figure in new), flush=True)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
