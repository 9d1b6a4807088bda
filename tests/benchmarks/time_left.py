"""`python -m tests.benchmarks.time_left`: how right the time left is that jobs tell.

Whole commands run on data of unequal recordings, each in a process of its own. What the bar would
show after each report is compared with what the command then took. Both go by CPU time, so that
other work on the machine makes no guess wrong. Told is the worst guess from a tenth of the time on,
as a share of the time that was left, up to the last tenth, in which shares mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .evaluating import CHECKOUT, run
from .figures import Figure

WORST = 1 / 3
"""Largest error of a guess, of the time that is left."""


def _commands(folder: Path, made: Path, run_folder: Path) -> dict[str, list[str]]:
    """Return command lines by name, in the order in which they need each other."""
    manifest, store = str(folder / "log.json"), str(made / "s.zarr")
    frames = str(folder / "data/test_blurry_33/scenes/00000")
    spikes = str(folder / "data/test_spike_2xds/scenes/00000/spike.dat")
    clock = ("--log", str(folder / "log.txt"))
    recordings = ("--blur", frames, "--spikes", spikes, *clock)
    scenes = ("--scenes", "8", "--size", "240x320", "--workers", "1")
    return {
        "simulate": ["simulate", str(made / "data"), *scenes],
        "voxelize": ["voxelize", manifest, store, "--workers", "1"],
        "check": ["check", store, "--manifest", manifest],
        "split": ["split", manifest, "--by", "clip", "--out", str(made / "split.json")],
        "calibrate": ["calibrate", "--recording", spikes, "--out", str(made / "sensor.zarr")],
        "adapt": ["adapt", str(made / "own.safetensors"), *recordings, "--steps", "30"],
        "report": ["report", str(run_folder), "--store", store, "--out", str(made / "a.html")],
    }


def record(folder: Path) -> None:
    """Simulate recordings of unequal size and length, and align them."""
    data, log = folder / "data", folder / "log.txt"
    for split, scenes, size, length in (
        ("train", 6, "240x320", 65),
        ("val", 2, "480x640", 129),
        ("test", 2, "360x480", 99),
    ):
        options = ("--scenes", str(scenes), "--split", split, "--size", size)
        run(CHECKOUT, "spikedeblur", "simulate", data, *options, "--length", str(length))
    run(CHECKOUT, "spikedeblur", "align", data, "--layout", "x4k1000fps", "--log", log)


def told(command: list[str]) -> list[tuple[float, float | None]]:
    """Run a command line here; return (CPU time, time left) of each report, and its end."""
    from spikedeblur.cli import main, progress
    from spikedeblur.pipeline.host import reporter as host

    clock: Any = SimpleNamespace(monotonic=time.process_time)
    host.time = progress.time = clock
    reports: list[tuple[float, float | None]] = []

    @contextmanager
    def progress_bar(title: str, unit: str = "") -> Iterator[progress.TerminalReporter]:
        pace = progress._Pace(unit)

        def show(done: int, total: int, note: str) -> None:
            if pace.update(done, total):
                reports.clear()  # another phase
                reports.append((time.process_time(), None))
            reports.append((time.process_time(), pace.left))

        yield progress.TerminalReporter(show, pace)

    progress.progress_bar = progress_bar  # type: ignore[assignment]
    if code := main(command):
        raise SystemExit(code)
    return [*reports, (time.process_time(), 0.0)]


def worst(reports: list[tuple[float, float | None]]) -> tuple[float, float, int]:
    """Return the worst error of a guess, when it was told, both as shares, and how many count."""
    began, end = reports[0][0], reports[-1][0]
    errors = [
        (abs(left - (end - now)) / (end - now), (now - began) / (end - began))
        for now, left in reports[1:-1]
        if left is not None and 0.1 <= (now - began) / (end - began) <= 0.9
    ]
    return (*max(errors, default=(0.0, 0.0)), len(errors))


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.time_left")
    parser.add_argument("--run", type=Path, help="a run folder, of which `report` tells")
    parser.add_argument("--folder", type=Path, help="of an earlier run's recordings, or for them")
    parser.add_argument("--only", nargs="*", help="names of jobs")
    parser.add_argument("--told", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.told:
        sys.stdout = sys.stderr
        reports = told(options.told)
        os.write(1, json.dumps(reports).encode())
        return 0
    passed = True
    with tempfile.TemporaryDirectory() as own:
        folder = options.folder or Path(own)
        if not (folder / "log.json").exists():
            record(folder)
        for name, command in _commands(folder, Path(own), options.run or Path()).items():
            skipped = options.only is not None and name not in options.only
            if skipped or (name == "report" and options.run is None):
                continue
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.time_left", "--told", *command],
                cwd=CHECKOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                check=True,
            )
            reports = json.loads(done.stdout)
            error, when, number = worst(reports)
            detail = f"at {when:.2f} of {reports[-1][0] - reports[0][0]:.1f} s; {number} guesses"
            figure = Figure(f"{name}, worst guess", error, "of the time left", WORST, detail, True)
            print(figure.line(), flush=True)
            passed = passed and figure.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
