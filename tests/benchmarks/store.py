"""The store: bytes, files, rates by chunk and codec, and the whole job, against the plain way.

The plain way at its best counts by unpacking and summing bytes, bin by bin, and saves uint8 `.npy`.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spikedeblur.pipeline.align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    Window,
    write_manifest,
)
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.spikes import SpikeGeometry, count_spikes
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.store.arrays import ArraySpec, Codec, divide
from spikedeblur.pipeline.store.shard import StoredArray
from spikedeblur.pipeline.store.write import array_files
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

from .figures import Figure, fastest

HEIGHT, WIDTH, SAMPLES, BINS, WINDOWS, CLIP, CROP = 360, 640, 88, 32, 21, 7, 128
GEOMETRY = SpikeGeometry(height=HEIGHT, width=WIDTH, flip_rows=True)


def record(folder: Path) -> Path:
    """Write a recording of a drifting texture and its frames; return the manifest."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.random((45, 100), np.float32))
    texture = np.asarray(coarse.resize((2 * WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    texture = np.clip(texture, 0, 1) * 0.45 + 0.02  # spikes a sample
    charge = rng.random((HEIGHT, WIDTH), np.float32)
    folder.mkdir(parents=True)
    with (folder / "spike.dat").open("wb") as file:
        for j in range(WINDOWS * SAMPLES):
            shift = j * 300 // (WINDOWS * SAMPLES)
            charge += texture[:, shift : shift + WIDTH]
            fired = charge >= 1
            charge -= fired
            file.write(np.packbits(fired[::-1], bitorder="little").tobytes())
    windows = []
    for i in range(WINDOWS):
        frame = (texture[:, i : i + WIDTH, None] * rng.uniform(300, 500, 3)).astype(np.uint8)
        for name in ("blur", "sharp"):
            Image.fromarray(frame).save(folder / f"{name}{i}.png", compress_level=1)
        windows.append(
            Window(
                frame_index=i,
                t0=i * SAMPLES / 8000,
                t1=(i * SAMPLES + SAMPLES - 1) / 8000,
                spike_count=0,
                spikes="spike.dat",
                first=0.0,
                blur=f"blur{i}.png",
                sharp=f"sharp{i}.png",
            )
        )
    files = {}
    for path in folder.iterdir():
        stat = path.stat()
        files[path.name] = FileRecord(size=stat.st_size, mtime_ns=stat.st_mtime_ns)
    sequence = AlignedSequence(
        seq="train/bench/0",
        geometry=GEOMETRY.describe(),
        rate=8000.0,
        gain=0.5,
        windows=tuple(windows),
        files=files,
    )
    manifest = folder.with_suffix(".json")
    write_manifest(
        manifest, Manifest(layout="unified", root=folder.name, fps=90.0, sequences=(sequence,))
    )
    return manifest


def plain_counts(packed: np.ndarray, bins: int, height: int, width: int) -> np.ndarray:
    """Unpack each bin in blocks of 1 MB and sum in bytes, upright; bins of at most 255 samples.

    Args:
        packed: (samples, bytes a frame), rows bottom-up; whole bytes a row are assumed.
    """
    samples = len(packed)
    edges = -(-np.arange(bins + 1) * samples // bins)
    counts = np.empty((bins, height, width), np.uint8)
    stored = np.empty(height * width, np.uint8)
    for k, (first, last) in enumerate(itertools.pairwise(edges.tolist())):
        step = 2**17 // (last - first)
        for at in range(0, packed.shape[1], step):
            bits = np.unpackbits(packed[first:last, at : at + step], axis=1, bitorder="little")
            np.add.reduce(bits, axis=0, dtype=np.uint8, out=stored[8 * at : 8 * (at + step)])
        counts[k] = stored.reshape(height, width)[::-1]
    return counts


def plain_job(recording: Path, out: Path) -> None:
    """Count each window, and save it and its decoded frames as uint8 `.npy`."""
    packed = np.fromfile(recording / "spike.dat", np.uint8).reshape(-1, HEIGHT * WIDTH // 8)
    out.mkdir()
    for i in range(WINDOWS):
        window = packed[i * SAMPLES : (i + 1) * SAMPLES]
        np.save(out / f"{i}.npy", plain_counts(window, BINS, HEIGHT, WIDTH))
        for name in ("blur", "sharp"):
            with Image.open(recording / f"{name}{i}.png") as image:
                np.save(out / f"{name}{i}.npy", np.asarray(image))


def figures(folder: Path, manifest: Path) -> list[Figure]:
    """Measure in `folder`, about a minute; `manifest` is what `record` wrote there.

    Leaves `packed.zarr`, `counts.zarr` and, not compressed, `none.zarr`.
    """
    dat, npy = folder / "recording/spike.dat", folder / "npy"
    began = time.process_time()
    plain_job(folder / "recording", npy)
    plain_seconds = time.process_time() - began
    summaries = {}
    seconds = {}
    for kind in ("packed", "counts"):
        path = folder / f"{kind}.zarr"
        began = time.process_time()
        summaries[kind] = voxelize_manifest(
            manifest, path, VoxelizeOptions(kind=kind), Workers(count=1)
        )
        seconds[kind] = time.process_time() - began
    voxelize_manifest(
        manifest,
        folder / "none.zarr",
        VoxelizeOptions(kind="counts", codec="none"),
        Workers(count=1),
    )
    (sequence,) = open_store(folder / "packed.zarr")
    for i in (0, WINDOWS - 1):
        np.testing.assert_array_equal(np.load(npy / f"{i}.npy"), sequence.voxels(i, i + 1)[0])
    dat_bytes = dat.stat().st_size
    spikes = {kind: summary.bytes_voxels for kind, summary in summaries.items()}
    n_files = len(open_storage(folder / "packed.zarr/train/bench/0/spikes/c").sizes())
    return [
        Figure(
            "disk, packed",
            spikes["packed"] / dat_bytes,
            "of the .dat, index included",
            1.001,
            f"{spikes['packed'] / 1e6:.1f} MB in {n_files} files",
            at_most=True,
        ),
        Figure("disk, counts", spikes["counts"] / dat_bytes, "of the .dat", 1.0, at_most=True),
        Figure(
            "disk, packed against uint8 .npy",
            BINS * HEIGHT * WIDTH * WINDOWS / spikes["packed"],
            "x less",
            2.5,
        ),
        Figure(
            "voxelize, whole job, one process",
            plain_seconds / seconds["packed"],
            "x counting, decoding and np.save",
            0.25,
            f"{1e3 * seconds['packed'] / WINDOWS:.0f} ms of CPU a window with two {HEIGHT}x{WIDTH} "
            f"frames, starting included; the plain way {1e3 * plain_seconds / WINDOWS:.0f} ms",
        ),
        *matrix(folder / "matrix", np.fromfile(dat, np.uint8), npy),
    ]


def matrix(folder: Path, packed: np.ndarray, npy: Path) -> list[Figure]:
    """Chunk x codec x pipeline for both kinds, on 7 windows: rates and sizes, for information."""
    rows = packed.reshape(-1, HEIGHT, WIDTH // 8)[: CLIP * SAMPLES, ::-1]
    counts = np.stack([np.load(npy / f"{i}.npy") for i in range(CLIP)]).astype(np.uint8)
    codecs: tuple[Codec, ...] = ("none", "lz4", "zstd")
    found = []
    for kind, side, codec in itertools.product(("packed", "counts"), (64, 128, 320), codecs):
        data = rows if kind == "packed" else counts
        high = min(side, 180)
        chunks = (SAMPLES, high, side // 8) if kind == "packed" else (1, BINS, high, side)
        name = f"{kind}-{side}-{codec}"
        found.append(_cell(folder, name, data, chunks, codec, rows.nbytes, SAMPLES))
    return found


def real_recordings(folder: Path, realdata: Path) -> list[Figure]:
    """Codecs on recordings that others made, in the store's own chunks; for information."""
    found = []
    for name, (height, width) in (
        ("reds_spike/203_part1_key_id151", (250, 400)),
        ("uhsr/uhsr_224x224", (224, 224)),
    ):
        packed = np.fromfile(realdata / f"{name}.dat", np.uint8)
        rows = packed.reshape(-1, height, width // 8)[:, ::-1]
        windows = len(rows) // SAMPLES
        rows = rows[: windows * SAMPLES]
        geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
        counts = np.stack(
            [
                count_spikes(packed, geometry, BINS, i * SAMPLES, (i + 1) * SAMPLES)
                for i in range(windows)
            ]
        )
        codecs: tuple[Codec, ...] = ("none", "lz4", "zstd")
        for kind, codec in itertools.product(("packed", "counts"), codecs):
            data, chunks = rows, (SAMPLES, divide(height, 192), width // 8)
            if kind == "counts":
                sides = divide(height, 128), divide(width, 128)
                data, chunks = counts, (1, BINS, *sides)
            label = f"{name.split('/')[0]}-{kind}-{codec}"
            found.append(_cell(folder, label, data, chunks, codec, rows.nbytes, SAMPLES))
    return found


def _cell(
    folder: Path,
    name: str,
    data: np.ndarray,
    chunks: tuple[int, ...],
    codec: Codec,
    dat_bytes: int,
    samples: int,
) -> Figure:
    """Write an array in one shard, and read crops of one window from it."""
    shards = tuple(-(-s // c) * c for s, c in zip(data.shape, chunks, strict=True))
    spec = ArraySpec(
        name=name,
        dtype="uint8",
        shape=data.shape,
        chunks=chunks,
        shards=shards,
        codec=codec,
        dimensions=("a", "b", "c", "d")[: data.ndim],
    )
    storage = open_storage(folder)
    began = time.perf_counter()
    files = array_files(spec, 0, data).items()
    size = sum(storage.write(key, [content], durable=False) for key, content in files)
    seconds = time.perf_counter() - began
    cold = _cold_crop(folder, spec, samples)
    rates = {name: 1 / t for name, t in _crop_times(folder, spec, samples).items()}
    return Figure(
        f"matrix {name} {'x'.join(map(str, chunks))}",
        rates["ours"],
        "crops of a window a second",
        None,
        ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
        + f", first after dropping the file from the page cache {1 / cold:.0f}; write "
        f"{data.nbytes / seconds / 1e6:.0f} MB/s; {size / dat_bytes:.2f} of the .dat",
    )


def _box(
    rng: np.random.Generator, shape: tuple[int, ...], samples: int
) -> tuple[tuple[int, int], ...]:
    """Return a random crop of one window, of packed spikes or of counts."""
    height, width = shape[-2], shape[-1] * (8 if len(shape) == 3 else 1)
    windows = shape[0] // samples if len(shape) == 3 else shape[0]
    side = min(CROP, height, width)
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    i = int(rng.integers(windows))
    if len(shape) == 3:
        last = -(-(x + side) // 8)
        return (i * samples, (i + 1) * samples), (y, y + side), (x // 8, last)
    return (i, i + 1), (0, shape[1]), (y, y + side), (x, x + side)


def _cold_crop(folder: Path, spec: ArraySpec, samples: int) -> float:
    """Return the seconds of a first read after the system was asked to forget the file."""
    rng = np.random.default_rng(3)
    path = folder / spec.key(0)
    times = []
    for _ in range(3):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        array = StoredArray(open_storage(folder), spec, {spec.key(0): path.stat().st_size})
        array.read(_box(rng, spec.shape, samples))
        times.append(time.perf_counter() - began)
    return min(times)


def _crop_times(folder: Path, spec: ArraySpec, samples: int) -> dict[str, float]:
    """Time bare reads of one crop: ours, and zarr-python's."""
    import zarr

    rng = np.random.default_rng(2)
    path = str(folder / spec.name)
    size = (folder / spec.key(0)).stat().st_size
    ours = StoredArray(open_storage(folder), spec, {spec.key(0): size})

    array: Any = zarr.open_array(path, mode="r")
    actions: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.read(_box(rng, spec.shape, samples)),
        "zarr": lambda: array[tuple(slice(*span) for span in _box(rng, spec.shape, samples))],
    }
    return fastest(actions, 10)
