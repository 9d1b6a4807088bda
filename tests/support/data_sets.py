"""A small aligned data set, made here: two sequences of random spikes and frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.align.log import write_alignment_log
from spikedeblur.pipeline.align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    Window,
    write_manifest,
)
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.spikes import SpikeGeometry
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.voxelize.job import VoxelizeSummary

GEOMETRY = SpikeGeometry(height=20, width=36, flip_rows=True)
RATE = 8000.0
FPS = 1000.0
FRAME_SHAPE = (40, 72)


class Listener(Reporter):
    """Hands a job's progress to a function."""

    def __init__(self, on_progress: Callable[[int, int, str], None]) -> None:
        self._on_progress = on_progress

    def progress(self, done: int, total: int, note: str = "") -> None:
        self._on_progress(done, total, note)


@dataclass
class DataSet:
    root: Path
    manifest: Path
    log: Path
    seqs: tuple[str, ...]
    spikes: dict[str, np.ndarray]
    """(T, h, w) of 0/1, upright, by seq."""
    frames: dict[tuple[str, str, int], np.ndarray]
    """(H, W, 3) by (seq, blur or sharp, frame_index)."""
    centres: tuple[int, ...]
    exposure: int

    def window(self, frame_index: int) -> tuple[int, int]:
        half = self.exposure // 2
        return (frame_index - half) * 8, (frame_index + half) * 8 + 1

    def voxels(self, seq: str, bins: int) -> np.ndarray:
        """The plain definition: sample j of N is in bin floor(j K / N)."""
        out = []
        for centre in self.centres:
            start, stop = self.window(centre)
            cut = self.spikes[seq][start:stop].astype(np.int64)
            n = len(cut)
            counts = np.zeros((bins, *cut.shape[1:]), np.int64)
            for j in range(n):
                counts[j * bins // n] += cut[j]
            out.append(counts)
        return np.stack(out)

    def voxelize(
        self,
        store: Path,
        *,
        workers: int | None = 1,
        scheduler: str | None = None,
        cluster: str | None = None,
        on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
        **options: object,
    ) -> VoxelizeSummary:
        where = Workers(count=workers, scheduler=scheduler, cluster=cluster)
        what = VoxelizeOptions(**({"bins": 8} | options))  # type: ignore[arg-type]
        return voxelize_manifest(self.manifest, store, what, where, reporter=Listener(on_progress))


def pack_plainly(spikes: np.ndarray) -> np.ndarray:
    """Rows bottom-up, least significant bit first: as cameras write."""
    return np.packbits(spikes[:, ::-1].reshape(-1), bitorder="little")


def record(path: Path) -> FileRecord:
    stat = path.stat()
    return FileRecord(size=stat.st_size, mtime_ns=stat.st_mtime_ns)


def make_data_set(
    folder: Path,
    *,
    centres: tuple[int, ...] = (2, 4, 6, 8, 10),
    exposure: int = 5,
    seqs: tuple[str, ...] = ("train/a/one", "val/b/two"),
    frame_shape: tuple[int, int] = FRAME_SHAPE,
    seed: int = 0,
) -> DataSet:
    rng = np.random.default_rng(seed)
    root = folder / "data"
    spikes, frames, sequences = {}, {}, []
    n_samples = (max(centres) + exposure // 2) * 8 + 1
    for seq in seqs:
        here = root / "raw" / seq
        (here / "blur").mkdir(parents=True)
        (here / "sharp").mkdir()
        spikes[seq] = (rng.random((n_samples, *GEOMETRY.shape)) < 0.4).astype(np.uint8)
        pack_plainly(spikes[seq]).tofile(here / "spike.dat")
        windows = []
        for centre in centres:
            for kind in ("blur", "sharp"):
                image = rng.integers(0, 256, (*frame_shape, 3), np.uint8)
                frames[seq, kind, centre] = image
                Image.fromarray(image).save(here / kind / f"{centre:04d}.png")
            start = (centre - exposure // 2) * 8
            stop = (centre + exposure // 2) * 8 + 1
            windows.append(
                Window(
                    frame_index=centre,
                    t0=(centre - exposure // 2) / FPS,
                    t1=(centre + exposure // 2) / FPS,
                    spike_count=int(spikes[seq][start:stop].sum()),
                    spikes=f"raw/{seq}/spike.dat",
                    first=0.0,
                    blur=f"raw/{seq}/blur/{centre:04d}.png",
                    sharp=f"raw/{seq}/sharp/{centre:04d}.png",
                )
            )
        named = {p for w in windows for p in (w.spikes, w.blur, w.sharp) if p}
        sequences.append(
            AlignedSequence(
                seq=seq,
                geometry=GEOMETRY.describe(),
                rate=RATE,
                gain=0.5,
                windows=tuple(windows),
                files={path: record(root / path) for path in sorted(named)},
            )
        )
    manifest = Manifest(
        layout="x4k1000fps",
        root="data",
        fps=FPS,
        exposure_frames=exposure,
        sequences=tuple(sequences),
    )
    write_manifest(folder / "align.json", manifest)
    write_alignment_log(folder / "align.txt", manifest.log_rows())
    return DataSet(
        root=root,
        manifest=folder / "align.json",
        log=folder / "align.txt",
        seqs=seqs,
        spikes=spikes,
        frames=frames,
        centres=centres,
        exposure=exposure,
    )


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return make_data_set(tmp_path)


@pytest.fixture(params=["packed", "counts"])
def kind(request: pytest.FixtureRequest) -> str:
    """What a Zarr store holds."""
    return str(request.param)


@pytest.fixture
def spikes_array(kind: str) -> str:
    """Name of the array that holds the spikes, in their own form or counted."""
    return {"packed": "spikes", "counts": "voxels"}[kind]


@pytest.fixture
def spikes_shard(kind: str) -> str:
    """Path of that array's first file, relative to the sequence."""
    return {"packed": "spikes/c/0/0/0", "counts": "voxels/c/0/0/0/0"}[kind]


@pytest.fixture
def store(data: DataSet, tmp_path: Path, kind: str) -> Path:
    data.voxelize(tmp_path / "s.zarr", kind=kind)
    return tmp_path / "s.zarr"
