"""Voxelizing jobs: one process, two Dask workers beside two plain processes, memory, many clips.

Where processes are compared, each is held to one core, and start-up is left out.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

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
from spikedeblur.pipeline.spikes import SpikeGeometry
from spikedeblur.pipeline.store.schema import SHARD_BYTES, Kind
from spikedeblur.pipeline.store.write import array_files
from spikedeblur.pipeline.voxelize import Workers
from spikedeblur.pipeline.voxelize.plan import FrameForm, ShardTask, Target, plan_sequence
from spikedeblur.pipeline.voxelize.task import write_shard
from spikedeblur.pipeline.voxelize.workers import GROUP_BYTES, connect, run_on

from .figures import Figure, fastest, resident

BINS, FRAME_SHAPE = 32, (360, 640)
SEQUENCES, WINDOWS = 20, 20
CLIPS = 4_408
"""Sequences of X-TRAIN, the training part of X4K1000FPS."""


def figures(folder: Path, manifest: Path, memory: Path) -> list[Figure]:
    """Measure; about three minutes.

    Args:
        folder: for what is written, on disk.
        manifest: of one recording of 360x640 with frames, `store.record`.
        memory: a folder in memory.
    """
    return [
        *one_process(manifest, memory),
        *side_by_side(manifest, memory),
        overhead(),
        *peak(folder, manifest),
        *many_clips(folder),
    ]


def tasks_of(
    manifest: Path, out: Path, sequences: int, windows: int, kind: Kind = "packed"
) -> list[ShardTask]:
    """Return the tasks of `windows` windows each of so many sequences, of one recording."""
    (recorded,) = read_manifest(manifest).sequences
    root = manifest.with_suffix("")
    tasks: list[ShardTask] = []
    for number in range(sequences):
        sequence = recorded.model_copy(
            update={"seq": f"train/bench/{number}", "windows": recorded.windows[:windows]}
        )
        target = Target(store=str(out), root=str(root), kind=kind, bins=BINS)
        plan = plan_sequence(sequence, target, FrameForm(FRAME_SHAPE, "uint8"), sequence.files)
        tasks += plan.tasks
    return tasks


def one_process(manifest: Path, memory: Path) -> list[Figure]:
    """Windows a second into a compressed, sharded store, without frames, and of its codec."""
    tasks = tasks_of(manifest, memory / "one", 2, WINDOWS, "counts")
    voxels = [
        replace(
            task,
            arrays=task.arrays[:1],
            sources=tuple(s for s in task.sources if s.path.endswith(".dat")),
            windows=tuple(replace(window, sharp=None) for window in task.windows),
        )
        for task in tasks
    ]
    write_shard(voxels[0])
    spec = voxels[0].arrays[0]
    store = memory / "one" / "train/bench/0"
    import zarr

    counts = np.asarray(zarr.open_array(str(store / "voxels"), mode="r")[: spec.per_file])
    keep_freed_memory()  # as the command does

    def ours() -> None:
        for task in voxels:
            write_shard(task)

    def codec_alone() -> None:
        for _ in range(3):
            array_files(spec, 0, counts)

    times = fastest({"ours": ours, "codec": codec_alone}, 4)
    rate = sum(len(task.windows) for task in voxels) / times["ours"]
    codec = 3 * len(counts) / times["codec"]
    return [
        Figure(
            "voxelize to compressed counts, one process",
            rate / codec,
            "of its codec's rate",
            0.3,
            f"{rate:.0f} windows/s; its codec alone {codec:.0f}",
        )
    ]


def side_by_side(manifest: Path, memory: Path) -> list[Figure]:
    """Two Dask workers, two plain processes and one, on the same 400 windows."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    rates: dict[str, list[float]] = {"one": [], "plain": [], "dask": []}
    windows = SEQUENCES * WINDOWS
    with connect(Workers(count=2)) as client:
        for worker, core in zip(client.nthreads(), cores, strict=False):
            client.run(os.sched_setaffinity, 0, {core}, workers=[worker])
        for _ in range(3):
            for name in rates:
                tasks = tasks_of(manifest, memory / name, SEQUENCES, WINDOWS)
                if name == "dask":
                    list(run_on(client, write_shard, tasks[:4]))
                    began = time.perf_counter()
                    for _ in run_on(client, write_shard, tasks):
                        pass
                    seconds = time.perf_counter() - began
                else:
                    seconds = plain(tasks, cores if name == "plain" else cores[:1])
                rates[name].append(windows / seconds)
    best = {name: max(values) for name, values in rates.items()}
    detail = ", ".join(f"{name} {rate:.0f}" for name, rate in best.items()) + " windows/s"
    return [
        Figure(
            "two Dask workers", best["dask"] / best["plain"], "x two plain processes", 0.85, detail
        ),
        Figure("two Dask workers", best["dask"] / best["one"], "x one plain process", 1.5),
    ]


def plain(tasks: Sequence[ShardTask], cores: Sequence[int]) -> float:
    """Return the seconds that plain processes take for the tasks, one a core."""
    spawn = get_context("spawn")
    barrier = spawn.Barrier(len(cores) + 1)
    processes = [
        spawn.Process(target=_write_all, args=(tasks[n :: len(cores)], core, barrier))
        for n, core in enumerate(cores)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    assert all(process.exitcode == 0 for process in processes)
    return seconds


def _write_all(tasks: Iterable[ShardTask], core: int, barrier: Barrier) -> None:
    os.sched_setaffinity(0, {core})
    tasks = list(tasks)
    for task in tasks[:2]:
        write_shard(task)
    barrier.wait()
    for task in tasks:
        write_shard(task)


def overhead() -> Figure:
    """What a task costs beside its work, against Dask's own `map` and `gather`."""
    seconds = {}
    with connect(Workers(count=2)) as client:
        for name, size, count in (("alone", GROUP_BYTES, 500), ("small", 2**20, 4_000)):
            list(run_on(client, abs, range(100), size=lambda task, size=size: size))
            began = time.perf_counter()
            for _ in run_on(client, abs, range(count), size=lambda task, size=size: size):
                pass
            seconds[name] = (time.perf_counter() - began) / count
        began = time.perf_counter()
        client.gather(client.map(abs, range(4_000), pure=False))
        seconds["plain"] = (time.perf_counter() - began) / 4_000
    return Figure(
        "Dask, a task of 1 MiB",
        seconds["small"] / seconds["plain"],
        "of a task's time by client.map",
        1,
        f"{1e3 * seconds['small']:.2f} ms; {1e3 * seconds['alone']:.1f} ms a task of "
        f"{GROUP_BYTES >> 20} MiB, which is sent alone",
        at_most=True,
    )


def peak(folder: Path, manifest: Path) -> list[Figure]:
    """Peak memory of a worker, and of one with ten times the input."""
    peaks = []
    for sequences in (2, 20):
        tasks = tasks_of(manifest, folder / "peak", sequences, WINDOWS)
        process = get_context("spawn").Process(target=_write, args=(tasks,))
        process.start()
        assert process.pid is not None
        peaks.append(peak_resident(process.pid, process.is_alive))
        assert process.exitcode == 0
    bound = 4.5 * SHARD_BYTES + 100e6
    return [
        Figure(
            "a worker's peak memory",
            peaks[0] / bound,
            "of 4.5 shards + 100 MB",
            1.0,
            f"{peaks[0] / 1e6:.0f} MB, {SHARD_BYTES / 1e6:.0f} MB a shard",
            at_most=True,
        ),
        Figure(
            "a worker's peak memory, ten times the input",
            peaks[1] / peaks[0],
            "of that",
            1.05,
            at_most=True,
        ),
    ]


def _write(tasks: Sequence[ShardTask]) -> None:
    for task in tasks:
        write_shard(task)


def peak_resident(pid: int, is_alive: Callable[[], bool]) -> int:
    """Wait for a process; return its largest resident size in bytes, looked at every 2 ms.

    The system's own record begins with the peak of the process that started it.
    """
    largest = 0
    while is_alive():
        largest = max(largest, resident(pid))
        time.sleep(0.002)
    return largest


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    """Which other processes lengthen less than they do the time."""
    peak: int
    """In bytes."""
    told: str
    """On stderr."""

    def figure(self, what: str, plain: Ran, bar: float) -> Figure:
        ratio = self.cpu_seconds / plain.cpu_seconds
        detail = f"{self.cpu_seconds:.1f} s of CPU, {self.seconds:.1f} s"
        return Figure(what, ratio, "x the CPU time to read all files", bar, detail, at_most=True)


def command(*words: str) -> Ran:
    """Run a command of ours in a process of its own."""
    return run("-m", "spikedeblur", *words)


def run(*words: str) -> Ran:
    """Run Python in a process of its own."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=told)
        peak = peak_resident(process.pid, lambda: process.poll() is None)
        told.seek(0)
        lines = told.read()
    assert process.returncode == 0, lines
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Ran(time.perf_counter() - began, cpu, peak, lines)


def many_clips(folder: Path) -> list[Figure]:
    """Planning X-TRAIN's number of clips, and running again with nothing changed."""
    manifest = _small_clips(folder / "many", CLIPS)
    few = _small_clips(folder / "few", CLIPS // 10)
    plan_few = _voxelize_alone(few, folder / "few.zarr", "--dry-run")
    plan = _voxelize_alone(manifest, folder / "many.zarr", "--dry-run")
    first = _voxelize_alone(few, folder / "few.zarr")
    again = _voxelize_alone(few, folder / "few.zarr")
    return [
        Figure(
            f"plan {CLIPS} clips",
            plan.cpu_seconds / plan_few.cpu_seconds,
            "x the CPU time for a tenth of them",
            10,
            f"{plan.cpu_seconds:.1f} s",
            at_most=True,
        ),
        Figure(f"plan {CLIPS} clips, peak", plan.peak / 1e6, "MB", 300, at_most=True),
        Figure(
            f"nothing changed in {CLIPS // 10} clips",
            again.cpu_seconds / first.cpu_seconds,
            "of the first run's CPU time",
            0.7,
            f"{again.cpu_seconds:.1f} s",
            at_most=True,
        ),
    ]


def _voxelize_alone(manifest: Path, store: Path, *options: str) -> Ran:
    return command("voxelize", str(manifest), str(store), "--bins=8", "--workers=1", *options)


def _small_clips(folder: Path, count: int) -> Path:
    """Write clips of three tiny windows that share their files' content; return the manifest."""
    rng = np.random.default_rng(0)
    height, width, samples, windows = 16, 24, 40, 3
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
    source = folder / "source"
    source.mkdir(parents=True)
    packed = rng.integers(0, 256, windows * samples * height * width // 8, dtype=np.uint8)
    (source / "spike.dat").write_bytes(packed.tobytes())
    for i in range(windows):
        for name in ("blur", "sharp"):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(source / f"{name}{i}.png")
    sequences = []
    for number in range(count):
        here = f"{number // 100:02d}/{number:05d}"
        (folder / "data" / here).mkdir(parents=True)
        files = {}
        for path in source.iterdir():
            link = folder / "data" / here / path.name
            link.hardlink_to(path)
            status = link.stat()
            files[f"{here}/{path.name}"] = FileRecord(
                size=status.st_size, mtime_ns=status.st_mtime_ns
            )
        sequences.append(
            AlignedSequence(
                seq=f"train/{here}",
                geometry=geometry.describe(),
                rate=8000.0,
                gain=0.5,
                files=files,
                windows=tuple(
                    Window(
                        frame_index=i,
                        t0=i * samples / 8000,
                        t1=(i * samples + samples - 1) / 8000,
                        spike_count=0,
                        spikes=f"{here}/spike.dat",
                        first=0.0,
                        blur=f"{here}/blur{i}.png",
                        sharp=f"{here}/sharp{i}.png",
                    )
                    for i in range(windows)
                ),
            )
        )
    manifest = folder / "data.json"
    write_manifest(
        manifest,
        Manifest(layout="unified", root="data", fps=90.0, sequences=tuple(sequences)),
    )
    return manifest
