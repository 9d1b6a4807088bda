"""`make bench-memory`: the peak memory of every stage as its input grows tenfold.

Each run is the command line in a process of its own, worker processes included; two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil

from .figures import Figure

os.environ["OMP_NUM_THREADS"] = "1"

FEW, MANY = 8, 80
"""Clips; or exposures of one clip."""

TRAIN = (
    "--config=configs/deblur/quickstart.yaml",
    *("--set=TRAIN.MAX_STEPS=30", "--set=TRAIN.VAL_INTERVAL=30", "--set=DATA.CACHE_SIZE_GB=0"),
    *("--set=TRAIN.NUM_WORKERS=1", "--set=DATA.CROP_SIZE=64", "--set=TRAIN.BATCH_SIZE=2"),
)


def peak(*arguments: str) -> int:
    """Return the most bytes that a command and its processes held at once."""
    process = psutil.Popen(
        [sys.executable, "-m", "spikedeblur", "--quiet", *arguments], stdout=subprocess.DEVNULL
    )
    most = 0
    while process.poll() is None:
        held = 0
        for member in (process, *process.children(recursive=True)):
            try:
                held += member.memory_info().rss
            except psutil.Error:
                continue  # it just ended
        most = max(most, held)
        try:
            process.wait(0.01)
        except psutil.TimeoutExpired:
            continue
    assert process.returncode == 0, f"{arguments[0]} failed"
    return most


def simulated(folder: Path, clips: int, exposures: int, *, splits: tuple[str, ...]) -> int:
    """Record clips; returns the peak."""
    length = 33 + 4 * (exposures - 1)
    return max(
        peak(
            *("simulate", str(folder), f"--scenes={clips}", f"--split={split}", "--size=96x96"),
            *(f"--length={length}", "--stride=4", "--workers=1"),
        )
        for split in splits
    )


def stages(folder: Path) -> dict[str, Callable[[str, int], int]]:
    """Return each stage by name: a function of where it works and how much there is."""

    def data(of: str) -> Path:
        return folder / of / "data"

    def restore(of: str, *method: str) -> int:
        clip = "test_{}/scenes/00000"
        return peak(
            *("restore", *method, "--blur", str(data(of) / clip.format("blurry_33"))),
            *("--spikes", str(data(of) / clip.format("spike_2xds") / "spike.dat")),
            *("--exposure=33", "--fps=1000", "--out", str(folder / of / method[-1])),
        )

    return {
        "simulate, clips": lambda of, n: simulated(data(of), n, 3, splits=("train", "val", "test")),
        "align, clips": lambda of, n: peak(
            *("align", str(data(of)), "--layout=x4k1000fps", f"--log={folder / of}/log.txt")
        ),
        "voxelize, clips": lambda of, n: peak(
            *("voxelize", f"{folder / of}/log.json", f"{folder / of}/s.zarr", "--workers=1")
        ),
        "check, clips": lambda of, n: peak("check", f"{folder / of}/s.zarr"),
        "train, clips": lambda of, n: peak(
            *("train", *TRAIN, f"--set=DATA.ROOT={folder / of}/s.zarr", f"--run={folder / of}/run")
        ),
        "evaluate --model small, clips": lambda of, n: peak(
            *("evaluate", f"{folder / of}/s.zarr", "--model=small", "--split=test")
        ),
        "simulate, exposures of a clip": lambda of, n: simulated(data(of), 1, n, splits=("test",)),
        "restore --method sdm, exposures": lambda of, n: restore(of, "--method", "sdm"),
        "restore --model small, exposures": lambda of, n: restore(of, "--model", "small"),
    }


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="make bench-memory", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        for stage, run in stages(Path(name)).items():
            grows_in = "clip" if "exposures" in stage else "clips"
            few, many = run(f"few {grows_in}", FEW), run(f"many {grows_in}", MANY)
            told = f"{few / 1e6:.0f} MB, {many / 1e6:.0f} MB"
            figures.append(
                Figure(stage, 100 * (many / few - 1), "% more for ten times", 10, told, True)
            )
            print(figures[-1].line(), flush=True)
    if options.json:
        content = [asdict(figure) | {"passed": figure.passed} for figure in figures]
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
