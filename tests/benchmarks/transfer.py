"""Reading a store in a bucket through the trainer's loader: what is transferred, and how fast.

Batches of 4 samples of 7 windows: counts of 32x128x128 and two frames of 128x128, at random
places, from a server on this machine that counts, and waits before each answer.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.storage.disk_cache import FOLDER, LIMIT
from spikedeblur.pipeline.store import shard as shard_module
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples

from .figures import Figure

# Where tests find them too; by name, since a spawned process imports it.
sys.path.append(str(Path(__file__).parents[1] / "support"))

BATCH, CLIP, CROP, DELAY_MS, AT_ONCE = 4, 7, 128, 20, 64


def figures(folder: Path, store: str, *, steps: int = 12) -> list[Figure]:
    """Measure with a store of 360x640 windows, the folder `store` in `folder`; half a minute."""
    from bucket_server import bucket_server
    from s3_server import environment

    from spikedeblur.pipeline.train.data.loader import open_loader

    with (
        bucket_server(folder.parent) as server,
        mock.patch.dict(os.environ, environment(server.endpoint)),
    ):
        sequences = open_store(f"s3://{folder.name}/{store}")
        index = ClipIndex.every_start([s.length for s in sequences], CLIP)
        samples = ClipSamples(sequences, index, crop_size=CROP, augment=True)
        plan = StepPlan(index, BATCH)

        def read(first: int, last: int, workers: int) -> float:
            """Return samples a second, without the first step and the start of workers."""
            with open_loader(samples, plan, first, last, workers=workers, pin=False) as loader:
                next(loader)
                began = time.perf_counter()
                count = sum(len(batch["seq"]) for step in loader for batch in step)
                return count / (time.perf_counter() - began)

        server.counters()
        with _needed() as chunks:
            read(0, steps, workers=0)
        counted = server.counters()
        needed = sum(size for *_, size in chunks)
        server.set_delay(DELAY_MS)
        plain = _side_by_side(folder.name, chunks) * steps * BATCH
        server.counters()
        rates = {workers: read(0, 4 * steps, workers) for workers in (0, 1)}
        at_once = server.counters().most_at_once
        server.set_delay(0)
        held, local = _hit_and_local(folder, store, steps)
    return [
        Figure(
            "bucket: bytes transferred",
            counted.bytes / needed,
            "of the chunks needed",
            1.1,
            f"{counted.bytes / 1e6:.1f} MB, what opening takes included",
            at_most=True,
        ),
        Figure(
            "bucket: requests",
            counted.requests / len(chunks),
            "a chunk needed",
            1.1,
            f"{counted.requests} for {len(chunks)} chunks",
            at_most=True,
        ),
        Figure("bucket: requests in flight", at_once, "at once", 16),
        Figure(
            f"bucket, {DELAY_MS} ms a request, no worker",
            rates[0] / plain,
            f"x chunks alone, by {AT_ONCE} threads",
            0.3,
            f"{rates[0]:.1f} samples/s against {plain:.1f}",
        ),
        Figure(
            f"bucket, {DELAY_MS} ms a request, one worker",
            rates[1] / plain,
            f"x chunks alone, by {AT_ONCE} threads",
            0.3,
            f"{rates[1]:.1f} samples/s",
        ),
        Figure(
            "bucket: all in the disk cache, CPU time",
            held / local,
            "x from a folder",
            4.0,
            f"{held * 1e3:.1f} ms a sample against {local * 1e3:.1f}",
            at_most=True,
        ),
    ]


def _hit_and_local(folder: Path, store: str, steps: int) -> tuple[float, float]:
    """Return CPU seconds a sample from a disk cache that holds all, and from the folder."""
    taken: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, {LIMIT: "1GB", FOLDER: cache}),
    ):
        readers = {}
        for place in (f"s3://{folder.name}/{store}", str(folder / store)):
            sequences = open_store(place)
            index = ClipIndex.every_start([s.length for s in sequences], CLIP)
            readers[place] = ClipSamples(sequences, index, crop_size=CROP, augment=True), index
        for turn in range(4):
            for place, (samples, index) in readers.items():
                began = time.process_time()
                for planned in StepPlan(index, BATCH).batches(0, steps):
                    samples.samples(planned.epochs.tolist(), planned.clips.tolist())
                if turn:  # the first fills the cache
                    taken.setdefault(place, []).append(time.process_time() - began)
    held, local = (min(each) / (steps * BATCH) for each in taken.values())
    return held, local


@contextmanager
def _needed() -> Iterator[list[tuple[str, int, int]]]:
    """Yield a list that gets (key, offset, bytes) of every chunk of which pixels are read."""
    chunks: list[tuple[str, int, int]] = []
    read = shard_module.StoredArray._read_chunks

    def noted(self: shard_module.StoredArray, spans: shard_module.Spans) -> np.ndarray:
        spec = self.spec
        touched = (
            range(start // side, -(-stop // side))
            for (start, stop), side in zip(spans, spec.chunks, strict=True)
        )
        for place in itertools.product(*touched):
            file, at = divmod(place[0], spec.grid[0])
            offset, size = self._index(file)[(at, *place[1:])].tolist()
            chunks.append((f"{self._storage}/{spec.key(file)}", offset, size))
        return read(self, spans)

    with mock.patch.object(shard_module.StoredArray, "_read_chunks", noted):
        yield chunks


def _side_by_side(bucket: str, chunks: list[tuple[str, int, int]]) -> float:
    """Return one over the seconds for all chunks, each by a request, whose places are known."""
    from obstore.store import S3Store

    store = S3Store(bucket, client_options={"allow_http": True})

    def get(chunk: tuple[str, int, int]) -> None:
        key, offset, size = chunk
        store.get_range(key.removeprefix(f"s3://{bucket}/"), start=offset, length=size)

    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(get, chunks))
    return 1 / (time.perf_counter() - began)


def main() -> None:
    """Measure alone."""
    from spikedeblur.pipeline.voxelize import Workers, voxelize_manifest

    from .store import record

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "bucket")
        voxelize_manifest(
            record(Path(name, "recording")), folder / "packed.zarr", workers=Workers(count=1)
        )
        for figure in figures(folder, "packed.zarr"):
            print(figure.line())


if __name__ == "__main__":
    main()
