"""A bucket that is read through the disk cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bucket_server import BucketServer, bucket_server
from s3_server import environment

from spikedeblur.pipeline.storage import disk_cache as module
from spikedeblur.pipeline.storage.base import Storage
from spikedeblur.pipeline.storage.disk_cache import FOLDER, LIMIT
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.storage.traffic import TRAFFIC


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    (tmp_path / "bucket/s").mkdir(parents=True)
    with bucket_server(tmp_path) as running:
        for name, value in environment(running.endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(LIMIT, "100MB")
        monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
        yield running


def opened() -> Storage:
    """Return the storage as a new run has it."""
    module._opened.cache_clear()
    storage = open_storage("s3://bucket/s").cached()
    assert storage.sizes_of(["a", "b"])
    return storage


SPANS = [(0, 10_000), (200_000, 3), (10_000, 10_000), (150_000, 0)]


def test_a_second_run_transfers_nothing_and_reads_the_same(
    server: BucketServer, tmp_path: Path
) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "bucket/s/a").write_bytes(content)
    for transferred in (True, False):
        storage = opened()
        server.counters()
        before = TRAFFIC.total
        read = storage.read_ranges("a", SPANS)
        assert [bytes(part) for part in read] == [content[a : a + n] for a, n in SPANS]
        assert storage.read("a") == content
        assert (server.counters().bytes > 0) == transferred
        fetched = TRAFFIC.total.fetched - before.fetched
        assert fetched == (320_003 if transferred else 0)
        assert TRAFFIC.total.used - before.used == 320_003


def test_bytes_that_are_held_are_not_fetched_again(server: BucketServer, tmp_path: Path) -> None:
    (tmp_path / "bucket/s/a").write_bytes(bytes(300_000))
    storage = opened()
    storage.read_ranges("a", [(10_000, 10_000)])
    server.counters()
    storage.read_ranges("a", [(0, 10_000), (10_000, 10_000), (20_000, 10_000)])
    assert server.counters().bytes == 20_000


def test_an_object_that_was_written_again_is_fetched_anew(
    server: BucketServer, tmp_path: Path
) -> None:
    file = tmp_path / "bucket/s/a"
    for value in (b"1", b"2"):
        file.unlink(missing_ok=True)
        file.write_bytes(value * 1000)
        storage = opened()
        assert bytes(storage.read_ranges("a", [(5, 1)])[0]) == value
        assert storage.read("a") == value * 1000


def test_only_a_storage_that_asks_reads_through_the_cache(
    server: BucketServer, tmp_path: Path
) -> None:
    (tmp_path / "bucket/s/a").write_bytes(bytes(1000))
    opened().read("a")
    plain = open_storage("s3://bucket/s")
    plain.sizes_of(["a"])
    server.counters()
    plain.read_ranges("a", [(0, 1000)])
    assert b"".join(plain.stream("a")) == bytes(1000)
    assert server.counters().bytes == 2000


def test_a_cached_storage_pickles_with_the_versions_that_it_saw(
    server: BucketServer, tmp_path: Path
) -> None:
    import pickle

    (tmp_path / "bucket/s/a").write_bytes(bytes(1000))
    storage = opened()
    storage.read("a")
    server.counters()
    copied: Storage = pickle.loads(pickle.dumps(storage))
    assert copied.read("a") == bytes(1000)
    assert server.counters().requests == 0
