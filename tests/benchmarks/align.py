"""Aligning as many clips as X-TRAIN has, again with nothing changed, and dealing them out."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spikedeblur.pipeline.spikes import parse_geometry
from spikedeblur.pipeline.spikes.dat import pack_spikes
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file

from .figures import Figure
from .jobs import CLIPS, peak_resident

CENTRES = (16, 31, 46)
GEOMETRY = "16x24,bottom-up"


def figures(folder: Path) -> list[Figure]:
    """Measure; about a minute."""
    root = folder / "x-train"
    small_clips(root, CLIPS)
    log, manifest = folder / "align.txt", folder / "align.json"
    align = ("align", str(root), "--layout=x4k1000fps", "--no-verify", f"--log={log}")
    first, again = run(*align), run(*align)
    dealt = run("split", str(manifest), "--val=0.1")
    kept = run(*align)
    checked = run("check", str(manifest))
    return [
        first.figure(f"align {CLIPS} clips", 60),
        Figure(f"align {CLIPS} clips, peak", first.peak / 1e6, "MB", 500, at_most=True),
        again.figure(f"align {CLIPS} clips, nothing changed", 5),
        dealt.figure(f"split {CLIPS} clips", 30),
        kept.figure(f"align {CLIPS} clips, split", 5),
        checked.figure(f"check {CLIPS} clips", 60),
        Figure(f"check {CLIPS} clips, peak", checked.peak / 1e6, "MB", 500, at_most=True),
    ]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    """Which other processes lengthen less than they do the time."""
    peak: int
    """In bytes."""

    def figure(self, what: str, bar: float) -> Figure:
        detail = f"{self.cpu_seconds:.1f} s of CPU"
        return Figure(what, self.seconds, "s", bar, detail, at_most=True)


def run(*words: str) -> Ran:
    """Run a command in a process of its own."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", "spikedeblur", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = peak_resident(process.pid, lambda: process.poll() is None)
    assert process.returncode == 0, words
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Ran(time.perf_counter() - began, cpu, peak)


def small_clips(root: Path, count: int) -> None:
    """Write clips of three exposures of 65 tiny frames, all of the same content."""
    rng = np.random.default_rng(0)
    geometry = parse_geometry(GEOMETRY)
    source = root.with_name("source")
    source.mkdir(parents=True)
    spikes = rng.random((513, *geometry.shape)) < 0.25
    (source / "spike.dat").write_bytes(pack_spikes(spikes, geometry).tobytes())
    write_side_file(source / "spike.dat", SideFile(geometry=GEOMETRY, rate=8000, gain=0.5))
    frames = rng.integers(96, 160, (3, 32, 48, 3), dtype=np.uint8)
    for centre, frame in zip(CENTRES, frames, strict=True):
        Image.fromarray(frame).save(source / f"{centre:04d}.png")
    for number in range(count):
        clip = f"{number // 40:03d}/occ{number % 40:03d}"
        for top, names in (
            ("train_blurry_33", [f"{c:04d}.png" for c in CENTRES]),
            ("train_fullRGB", [f"{c:04d}.png" for c in CENTRES]),
            ("train_spike_2xds", ["spike.dat", "spike.dat.json"]),
        ):
            (root / top / clip).mkdir(parents=True)
            for name in names:
                (root / top / clip / name).hardlink_to(source / name)
