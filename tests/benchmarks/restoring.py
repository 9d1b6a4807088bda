"""`python -m tests.benchmarks.restoring`: time and memory of `restore` by `path`, one core and two.

The whole command restores three neighbouring frames of 1280x720 on one
core and on two in turns. Wall time says something only while the machine does nothing else, and the
load beside each figure tells whether it did; what free cores would take is told by CPU times too
(`critical_path`). With `--against FOLDER`, CPU time on one core and the
frames' bytes are compared with another checkout's, in turns too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from . import critical_path
from .evaluating import CHECKOUT, run
from .figures import Figure

LEAST = 1.5
"""Least speed on two cores, of that on one, where both are free."""
MOST_GB = 2.0
"""Most memory of the whole command on one core."""


class Run(NamedTuple):
    """What one restore took."""

    wall: float
    cpu: float
    peak: int
    load: float
    frames: str
    """Digest of the frames' files."""


def record(folder: Path) -> Path:
    """Return the manifest of a scene in three exposures of 33 samples."""
    data, log = folder / "data", folder / "log.txt"
    options = ("--scenes", "1", "--split", "test", "--size", "720x1280")
    exposures = ("--length", "99", "--stride", "33")
    run(CHECKOUT, "spikedeblur", "simulate", data, *options, *exposures)
    run(CHECKOUT, "spikedeblur", "align", data, "--layout", "x4k1000fps", "--log", log)
    return log.with_suffix(".json")


def restored(package: Path, manifest: Path, cores: int, method: str) -> Run:
    """Restore on so many cores, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spikedeblur").symlink_to(package)
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "spikedeblur", "restore", "--method", method]
        places = ["--manifest", str(manifest), "--out", str(out)]
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        began, load = time.monotonic(), os.getloadavg()[0]
        process = subprocess.Popen(
            [*command, *places],
            cwd=CHECKOUT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=partial(os.sched_setaffinity, 0, allowed),
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        wall = time.monotonic() - began
        files = sorted(out.rglob("*.png"))
        digest = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return Run(wall, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss, load, digest)


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.restoring")
    parser.add_argument("--against", type=Path, help="another checkout, run in turns with this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--method", default="path")
    parser.add_argument("--manifest", type=Path, help="of frames that are there already")
    options = parser.parse_args()
    cases: dict[str, tuple[Path, int]] = {"one core": (CHECKOUT, 1), "two cores": (CHECKOUT, 2)}
    if options.against:
        cases["theirs"] = options.against.resolve(strict=True), 1
    with tempfile.TemporaryDirectory() as folder:
        manifest = (options.manifest or record(Path(folder))).resolve()
        runs: dict[str, list[Run]] = {name: [] for name in cases}
        for _ in range(options.repeats):
            for name, (package, cores) in cases.items():
                runs[name].append(restored(package, manifest, cores, options.method))
        by_chain = critical_path.figures(manifest, options.method)
    wall = {name: min(each.wall for each in several) for name, several in runs.items()}
    cpu = {name: statistics.median(each.cpu for each in several) for name, several in runs.items()}
    peak = {name: max(each.peak for each in several) / 1e9 for name, several in runs.items()}
    load = max(each.load for several in runs.values() for each in several)
    detail = f"{wall['two cores']:.1f} s, {wall['one core']:.1f} s on one; load {load:.1f}"
    speed = wall["one core"] / wall["two cores"]
    figures = [
        Figure("restore, two cores", speed, "of one core's speed", LEAST, detail),
        Figure("restore, memory on one core", peak["one core"], "GB", MOST_GB, at_most=True),
        Figure("restore, memory on two cores", peak["two cores"], "GB"),
    ]
    figures += by_chain
    if options.against:
        same = runs["one core"][0].frames == runs["theirs"][0].frames
        detail = (
            f"{cpu['one core']:.1f} of {cpu['theirs']:.1f} CPU s, {peak['theirs']:.2f} GB there"
        )
        detail += f", {'the same' if same else 'other'} frames"
        share = cpu["one core"] / cpu["theirs"]
        figures.append(Figure("restore, against", share, "of the other's time", None, detail))
    print("\n".join(figure.line() for figure in figures), flush=True)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
