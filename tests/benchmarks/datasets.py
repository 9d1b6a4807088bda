"""What a data set takes: `python -m tests.benchmarks.datasets` prints it, in about a minute.

Of each data set some clips of its sizes are made here, and `voxelize --dry-run` measures with them
what all of it would take. Then all their tasks are done, by one process and by two Dask workers.
The page cache is warm.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

from spikedeblur.pipeline.align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    Window,
    read_manifest,
    write_manifest,
)
from spikedeblur.pipeline.host.allocator import keep_freed_memory
from spikedeblur.pipeline.host.reporter import duration
from spikedeblur.pipeline.spikes import SpikeGeometry
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.voxelize.plan import FrameForm, Target, plan_sequence
from spikedeblur.pipeline.voxelize.task import write_shard
from spikedeblur.pipeline.voxelize.workers import connect, run_on

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class DataSet:
    """Sequences of one size."""

    name: str
    clips: float
    """In all; a part of one is a share of its time."""
    made: int
    """Clips that are made here."""
    spike_shape: tuple[int, int]
    samples: int
    """Of a clip."""
    exposure: int
    """Samples of a window."""
    windows: int
    frame_shape: tuple[int, int]
    has_sharp: bool = True


SETS = (
    DataSet("Spk-X4K1000FPS, frames of 384x384", 4408, 60, (384, 384), 257, 129, 3, (384, 384)),
    DataSet("the same, frames of 768x768", 4408, 40, (384, 384), 257, 129, 3, (768, 768)),
    DataSet("Spk-GoPro, frames of 1280x720", 3214, 60, (360, 640), 97, 97, 1, (720, 1280)),
    DataSet(
        "1,000 hours of a 250x400 camera at 20 kHz, blurred frames at 30 Hz",
        1000 * 3600 * 4,
        3,
        (250, 400),
        5000,
        660,
        7,
        (250, 400),
        has_sharp=False,
    ),
)


def make(data: DataSet, folder: Path) -> Path:
    """Write a clip of a drifting texture, link it as often as asked for; return the manifest."""
    rng = np.random.default_rng(0)
    height, width = data.frame_shape
    coarse = Image.fromarray(rng.random((height // 8, width // 8), np.float32))
    texture = np.asarray(coarse.resize((width + 64, height), Image.Resampling.BICUBIC))
    clip = folder / "clip"
    clip.mkdir(parents=True)
    spikes = rng.random((data.samples, *data.spike_shape), np.float32) < 0.25
    np.packbits(spikes.reshape(-1), bitorder="little").tofile(clip / "spike.dat")
    kinds = ("blur", "sharp") if data.has_sharp else ("blur",)
    for i in range(data.windows):
        shifted = texture[:, 8 * i : 8 * i + width, None].clip(0, 1)
        frame = (shifted * rng.uniform(150, 250, 3) + rng.normal(0, 1.5, (height, width, 3))).clip(
            0, 255
        )
        for kind in kinds:
            Image.fromarray(frame.astype(np.uint8)).save(clip / f"{kind}{i}.png", compress_level=1)
    geometry = SpikeGeometry(height=data.spike_shape[0], width=data.spike_shape[1], flip_rows=True)
    rate = 20_000.0
    starts = np.linspace(0, data.samples - data.exposure, data.windows).astype(int)
    sequences = []
    for number in range(data.made):
        here = f"{number:05d}"
        (folder / "data" / here).mkdir(parents=True)
        files = {}
        for path in clip.iterdir():
            link = folder / "data" / here / path.name
            link.hardlink_to(path)
            status = link.stat()
            files[f"{here}/{path.name}"] = FileRecord(
                size=status.st_size, mtime_ns=status.st_mtime_ns
            )
        windows = tuple(
            Window(
                frame_index=i,
                t0=int(start) / rate,
                t1=(int(start) + data.exposure - 1) / rate,
                spike_count=0,
                spikes=f"{here}/spike.dat",
                first=0.0,
                blur=f"{here}/blur{i}.png",
                sharp=f"{here}/sharp{i}.png" if data.has_sharp else None,
            )
            for i, start in enumerate(starts)
        )
        sequences.append(
            AlignedSequence(
                seq=f"train/bench/{here}",
                geometry=geometry.describe(),
                rate=rate,
                gain=0.5,
                files=files,
                windows=windows,
            )
        )
    manifest = Manifest(layout="unified", root="data", fps=30.0, sequences=tuple(sequences))
    write_manifest(folder / "align.json", manifest)
    return folder / "align.json"


def row(data: DataSet, folder: Path, client: Client) -> str:
    """Return a line of the table."""
    manifest = make(data, folder)
    share = data.clips / data.made
    foretold = voxelize_manifest(
        manifest, folder / "s.zarr", VoxelizeOptions(dry_run=True)
    ).estimate
    assert foretold is not None
    target = Target(store=str(folder / "s.zarr"), root=str(folder / "data"), kind="packed", bins=32)
    tasks = [
        task
        for sequence in read_manifest(manifest).sequences
        for task in plan_sequence(
            sequence, target, FrameForm(data.frame_shape, "uint8"), sequence.files
        ).tasks
    ]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for workers, taken in seconds.items():
            began = time.perf_counter()
            done = map(write_shard, tasks) if workers == 1 else run_on(client, write_shard, tasks)
            for _ in done:
                pass
            taken.append(time.perf_counter() - began)
    one, two = min(seconds[1]), min(seconds[2])
    cells = [
        data.name,
        _size(share * foretold.bytes_in),
        _size(share * foretold.bytes_out),
        *(duration(share * foretold.seconds(workers)) for workers in (1, 8, 64)),
        f"{_size(foretold.bytes_out / foretold.seconds(64))}/s",
        f"{one / foretold.worker_seconds:.2f}",
        f"{one / two:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    print(
        "| data set | read | store | 1 worker | 8 | 64 | the store's disk, 64 |"
        " real / foretold, 1 worker | 2 workers / 1 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    keep_freed_memory()
    with connect(Workers(count=2)) as client, tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(SETS):
            print(row(data, Path(folder, str(number)), client), flush=True)
            shutil.rmtree(Path(folder, str(number)))


def _size(nbytes: float) -> str:
    unit, size = next(
        (unit, size) for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if nbytes >= size
    )
    return f"{nbytes / size:.3g} {unit}"


if __name__ == "__main__":
    main()
