"""`make bench-hours`: recordings of 150 GB a minute. Bytes that kills cost, and memory of a part.

A sequence of 2 GB is voxelized undisturbed, then killed ten times at random. What is read of its
recording is what the system brought into memory: its cache is emptied before each start and looked
into (`mincore`) after each end. Then 0.2 s in the middle of sparse recordings of 6.4 and 64 GB are
restored, and the process's largest resident memory is compared.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from spikedeblur.pipeline.align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    Window,
    write_manifest,
)
from spikedeblur.pipeline.host.pieces import HashForm, hash_file
from spikedeblur.pipeline.spikes import SideFile, SpikeGeometry, write_side_file
from spikedeblur.pipeline.spikes.dat import pack_spikes
from tests.torture.kills import fingerprints, kill

from .figures import Figure

os.environ["OMP_NUM_THREADS"] = "1"

RATE = 20_000.0
SIDE = 1000
GEOMETRY = SpikeGeometry(height=SIDE, width=SIDE, flip_rows=True)
SAMPLE = SIDE * SIDE // 8
"""Bytes of a sample: 2.5 GB a second."""
FPS, SHUTTER = 30, 0.016
SEQ = "train/hours/0001"


class Scene:
    """A texture that moves by a byte's width in every `REPEATS` samples."""

    REPEATS = 64

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        light = np.zeros((SIDE, SIDE), np.float32)
        for cell, weight in ((40, 0.5), (20, 0.3), (8, 0.2)):
            small = Image.fromarray(rng.random((SIDE // cell, SIDE // cell), np.float32))
            light += weight * np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        self._light = np.clip(light, 0.05, 0.95)
        phase = rng.random((SIDE, SIDE), np.float32)
        rates = self._light / 2
        spikes = [
            np.floor((t + 1) * rates + phase) > np.floor(t * rates + phase)
            for t in range(self.REPEATS)
        ]
        packed = pack_spikes(np.stack(spikes), GEOMETRY)
        self._packed = packed.reshape(self.REPEATS, SIDE, SIDE // 8)  # (T, H, W / 8)

    def write(self, file: object, samples: int) -> None:
        """Write samples to a `.dat`, from its present place on."""
        for start in range(0, samples, self.REPEATS):
            moved = np.roll(self._packed, start // self.REPEATS, axis=-1)
            file.write(moved[: samples - start].tobytes())  # type: ignore[attr-defined]

    def frame(self, start: int, stop: int, size: tuple[int, int]) -> Image.Image:
        """Return the blurred frame of an exposure."""
        steps = range(start // self.REPEATS, -(-stop // self.REPEATS))
        mean = np.mean([np.roll(self._light, 8 * k, axis=1) for k in steps], axis=0)
        frame = Image.fromarray(np.rint(255 * mean).astype(np.uint8)).convert("RGB")
        return frame.resize(size[::-1], Image.Resampling.BOX)


def exposures(seconds: float) -> list[tuple[int, int]]:
    """Return samples [start, stop) of each exposure of so many seconds."""
    starts = [round(i * RATE / FPS) for i in range(int(seconds * FPS))]
    return [(start, start + round(SHUTTER * RATE)) for start in starts]


def write_data(root: Path, scene: Scene, samples: int, size: tuple[int, int]) -> Path:
    """Write a data set of one recording, and return its manifest."""
    (root / "blur").mkdir(parents=True)
    with (root / "spike.dat").open("wb") as file:
        scene.write(file, samples)
        os.fsync(file.fileno())
    windows = []
    for number, (start, stop) in enumerate(exposures(samples / RATE)):
        scene.frame(start, stop, size).save(root / f"blur/{number:06d}.png")
        window = Window(
            frame_index=number,
            t0=start / RATE,
            t1=(stop - 1) / RATE,
            spike_count=0,
            spikes="spike.dat",
            first=0.0,
            blur=f"blur/{number:06d}.png",
        )
        windows.append(window)
    files = {}
    for path in {path for window in windows for path in window.paths}:
        stat = (root / path).stat()
        form = HashForm.of_bytes(stat.st_size)
        digest = hash_file(root / path, stat.st_size, form) if path.endswith(".dat") else None
        files[path] = FileRecord(
            size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=digest, piece=form.piece
        )
    sequence = AlignedSequence(
        seq=SEQ, geometry=GEOMETRY.describe(), rate=RATE, windows=tuple(windows), files=files
    )
    manifest = Manifest(layout="custom", root=root.name, fps=FPS, sequences=(sequence,))
    write_manifest(root.with_suffix(".json"), manifest)
    return root.with_suffix(".json")


def empty_cache(path: Path) -> None:
    """Have the system forget what it holds of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_cache(path: Path) -> int:
    """Return how many bytes of a file the system holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
        failed = libc.mincore(
            ctypes.c_void_p(view.ctypes.data),
            ctypes.c_size_t(len(mapped)),
            ctypes.c_void_p(pages.ctypes.data),
        )
        assert not failed, os.strerror(ctypes.get_errno())
        del view
    return int((pages & 1).sum()) * mmap.PAGESIZE


def killed(folder: Path, data: Path, kills: int, workers: int, seed: int) -> list[Figure]:
    """Voxelize undisturbed, then with kills; compare bytes of the store and of what was read."""
    dat, rng = data.with_suffix("") / "spike.dat", random.Random(seed)
    size = dat.stat().st_size

    def start(out: Path) -> subprocess.Popen[bytes]:
        empty_cache(dat)
        words = ("--quiet", "voxelize", str(data), str(out), f"--workers={workers}")
        return subprocess.Popen(
            [sys.executable, "-m", "spikedeblur", *words],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_for_note(process: subprocess.Popen[bytes], out: Path, before: int) -> None:
        while process.poll() is None and notes(out) <= before:
            time.sleep(0.02)

    def notes(out: Path) -> int:
        return len(list((out / SEQ / ".work").glob("*.json")))

    begun = time.monotonic()
    process = start(folder / "whole")
    wait_for_note(process, folder / "whole", 0)
    first = time.monotonic() - begun
    assert process.wait() == 0
    work = time.monotonic() - begun - first
    undisturbed = in_cache(dat)
    shards = sum(1 for path in (folder / "whole" / SEQ / "spikes/c").rglob("*") if path.is_file())
    read = hit = 0
    out = folder / "killed"
    while True:
        process = start(out)
        if hit == kills:
            assert process.wait() == 0
            read += in_cache(dat)
            break
        left = 1 - notes(out) / shards  # the machine may be quicker now, or slower
        time.sleep(first + rng.random() * 0.9 * work * left / (kills + 1 - hit))
        if process.poll() is not None:
            read += in_cache(dat)
            break
        kill(process, rng)
        hit += 1
        read += in_cache(dat)
    same = fingerprints(folder / "whole") == fingerprints(out)
    named = f"{hit} kills, {workers} workers, {size / 1e9:.2f} GB, {first + work:.0f} s undisturbed"
    return [
        Figure(
            "voxelize, killed: bytes read",
            read / size,
            "of the file, its hash included",
            1.3,
            f"{named}; undisturbed {undisturbed / size:.3f}",
            True,
        ),
        Figure("voxelize, killed: store", float(not same), "files that differ", 0, named, True),
    ]


_PEAK = """
import sys
from spikedeblur.cli import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
sys.exit(code)
"""
"""Runs a command and prints its largest resident memory, mapped files included, in KiB."""


def memory(folder: Path, scene: Scene, sizes: list[float], frame: tuple[int, int]) -> list[Figure]:
    """Restore 0.2 s of sparse recordings and compare the peaks of memory."""
    begin, seconds = 1.0, 0.2
    dat, blur = folder / "long.dat", folder / "long"
    blur.mkdir()
    rows = ["frame,start_s,end_s"]
    with dat.open("wb") as file:
        file.seek(round(begin * RATE) * SAMPLE)
        scene.write(file, round((seconds + 0.05) * RATE))
    for number, (start, stop) in enumerate(exposures(seconds)):
        scene.frame(start, stop, frame).save(blur / f"{number:04d}.png")
        rows.append(f"{number:04d}.png,{begin + start / RATE:.6f},{begin + stop / RATE:.6f}")
    (folder / "times.csv").write_text("\n".join(rows) + "\n")
    facts = SideFile(geometry=GEOMETRY.describe(), rate=RATE, gain=0.5)
    write_side_file(dat, facts)
    peaks = []
    for gigabytes in sizes:
        with dat.open("r+b") as file:
            file.truncate(round(gigabytes * 1e9 / SAMPLE) * SAMPLE)
        words = ("--quiet", "restore", "--method=sdm", f"--blur={blur}", f"--spikes={dat}")
        words += (f"--times={folder / 'times.csv'}", f"--out={folder / f'out {gigabytes:g}'}")
        words += (f"--from={begin}s", f"--to={begin + seconds}s")
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        peaks.append(1024 * int(done.stdout.split()[-1]))
        names = [path.name for path in (folder / f"out {gigabytes:g}").glob("*.png")]
        assert len(names) == len(exposures(seconds)), names
    named = ", ".join(f"{g:g} GB: {p / 1e6:.0f} MB" for g, p in zip(sizes, peaks, strict=True))
    named += f"; frames of {frame[0]}x{frame[1]}"
    change = 100 * abs(peaks[-1] / peaks[0] - 1)
    return [
        Figure("restore of 0.2 s: peak", max(peaks) / 1e6, "MB", 600, named, True),
        Figure(
            "restore of 0.2 s: growth", change, "% from the shortest to the longest", 5, named, True
        ),
    ]


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="make bench-hours", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of what is voxelized")
    parser.add_argument("--only", choices=["memory", "kills"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frame", default="480x640", help="HxW of the colour frames")
    parser.add_argument("--sizes", default="6.4,64", help="gigabytes of the sparse recordings")
    parser.add_argument("--folder", help="where to work; a disk, not memory")
    options = parser.parse_args()
    height, width = map(int, options.frame.split("x"))
    scene, figures = Scene(), []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sizes = [float(size) for size in options.sizes.split(",")]
        if options.only != "kills":
            figures += memory(folder, scene, sizes, (height, width))
            print("\n".join(figure.line() for figure in figures), flush=True)
        if options.only != "memory":
            samples = round(options.gigabytes * 1e9 / SAMPLE)
            data = write_data(folder / "data", scene, samples, (height, width))
            more = killed(folder, data, options.kills, options.workers, options.seed)
            print("\n".join(figure.line() for figure in more), flush=True)
            figures += more
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
