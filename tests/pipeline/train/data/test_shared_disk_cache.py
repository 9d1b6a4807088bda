"""One disk cache for two processes that read a store in a bucket, and for what befalls them."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bucket_readers import digest_of_epoch, epochs_of, start_reader
from bucket_server import BucketServer, bucket_server
from s3_server import environment

from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.storage.disk_cache import FOLDER, LIMIT, DiskCache
from spikedeblur.pipeline.storage.disk_ledger import PAGE
from spikedeblur.pipeline.voxelize import Workers, voxelize_manifest

pytestmark = pytest.mark.slow

STORE = "s3://bucket/spikes.zarr"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of six recordings of three windows each."""
    folder = tmp_path_factory.mktemp("data")
    simulate(folder / "frames", scene_clips("train", 6, (112, 144), 65), Rig(), workers=1)
    manifest = folder / "align.json"
    align(folder / "frames", "x4k1000fps", log=folder / "align.txt", manifest=manifest, workers=1)
    voxelize_manifest(manifest, folder / "bucket/spikes.zarr", workers=Workers(count=1))
    return folder / "bucket"


@pytest.fixture
def limit(bucket: Path) -> int:
    """A third of the store."""
    return sum(file.stat().st_size for file in bucket.rglob("*/c/**/*") if file.is_file()) // 3


@pytest.fixture
def server(
    bucket: Path, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BucketServer]:
    with bucket_server(bucket.parent) as running:
        for name, value in environment(running.endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(LIMIT, str(limit))
        monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
        yield running


def entries(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*/*") if path.is_file()]


def taken(cache: Path) -> int:
    """Bytes of the cache's files in whole pages, while nobody writes."""
    with (cache / "ledger").open("r+b") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        return sum(-(-path.stat().st_size // PAGE) * PAGE for path in entries(cache))


def expected_of(bucket: Path, epoch: int, rank: int = 0, world: int = 1) -> str:
    return digest_of_epoch(*epochs_of(str(bucket / "spikes.zarr"), rank, world), epoch)


def test_two_processes_fetch_less_by_what_the_cache_holds_and_never_pass_its_limit(
    bucket: Path, server: BucketServer, limit: int, tmp_path: Path
) -> None:
    readers = [start_reader(STORE, rank, 2) for rank in range(2)]
    fetched, most = [], 0
    for epoch in range(2):
        server.counters()
        for _, link in readers:
            link.send(epoch)
        waiting = list(enumerate(readers))
        while waiting:
            if (tmp_path / "cache/ledger").exists():
                most = max(most, taken(tmp_path / "cache"))
            time.sleep(0.03)
            for rank, (process, link) in list(waiting):
                assert process.is_alive() or link.poll()
                if link.poll():
                    assert link.recv() == expected_of(bucket, epoch, rank, 2)
                    waiting.remove((rank, (process, link)))
        fetched.append(server.counters().bytes)
    for process, _ in readers:
        process.kill()
        process.join()
    held = sum(path.stat().st_size for path in entries(tmp_path / "cache"))
    assert 0.9 * limit < most <= limit
    assert held > 0.7 * limit, "the rest is ends of pages"
    assert fetched[0] > 2.5 * limit
    assert fetched[1] <= fetched[0] - 0.75 * held, [*fetched, held]


def test_killed_processes_leave_it_whole(
    bucket: Path, server: BucketServer, limit: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    server.set_delay(3)
    for kill in range(4):
        process, link = start_reader(STORE, 0, 1)
        link.send(kill)
        while not (tmp_path / "cache").exists() or len(entries(tmp_path / "cache")) < 5:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.join()
        assert taken(tmp_path / "cache") <= limit
    cache = DiskCache(tmp_path / "cache", limit)
    whole = [path for path in entries(tmp_path / "cache") if not path.name.endswith(".new")]
    assert whole
    assert all(cache.get(path.name) for path in whole)
    assert digest_of_epoch(*epochs_of(STORE), 9) == expected_of(bucket, 9)
    assert taken(tmp_path / "cache") <= limit


def test_flipped_bytes_are_fetched_anew(
    bucket: Path, server: BucketServer, limit: int, tmp_path: Path
) -> None:
    digest_of_epoch(*epochs_of(STORE), 0)
    held = entries(tmp_path / "cache")
    for number, path in enumerate(held):
        content = bytearray(path.read_bytes())
        content[number * 977 % len(content)] ^= 1 << number % 8
        path.write_bytes(content)
    server.counters()
    assert digest_of_epoch(*epochs_of(STORE), 1) == expected_of(bucket, 1)
    assert server.counters().bytes > 2.5 * limit
    assert all(
        DiskCache(tmp_path / "cache", limit).get(p.name) for p in entries(tmp_path / "cache")
    )
