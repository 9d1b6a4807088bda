"""Training data from a bucket: what is transferred, and that waiting is done side by side."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bucket_server import BucketServer, bucket_server
from s3_server import environment
from training_sets import make_store

from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.disk_cache import FOLDER, LIMIT
from spikedeblur.pipeline.train.clock import Clock
from spikedeblur.pipeline.train.data.cache import LRUCache
from spikedeblur.pipeline.train.data.loader import open_loader
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buckets") / "bucket"
    folder.mkdir()
    make_store(folder)
    return folder


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with bucket_server(folder.parent) as running:
        for name, value in environment(running.endpoint).items():
            monkeypatch.setenv(name, value)
        yield running


def samples_of(location: str, cache: int | None = None, beside: float | None = None) -> ClipSamples:
    sequences = open_store(location, "train", bins=8)
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    held = None if cache is None else LRUCache(cache / 2**30)
    how = {"crop_size": 16, "augment": True, "cache": held, "beside": beside}
    return ClipSamples(sequences, index, **how)


def batches(samples: ClipSamples, workers: int) -> list[dict]:
    plan = StepPlan(samples.index, 2)
    with open_loader(samples, plan, 0, 6, workers=workers, pin=False) as steps:
        # A worker's batch is good until the next one is asked for.
        return [
            {n: value.numpy().copy() for n, value in batch.items() if torch.is_tensor(value)}
            for step in steps
            for batch in step
        ]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cache", [None, 40_000], ids=["no cache", "a cache of some windows"])
@pytest.mark.parametrize("beside", [None, 0.25], ids=["voxels", "packed spikes"])
def test_batches_from_a_bucket_are_those_from_a_folder(
    folder: Path, server: BucketServer, workers: int, cache: int | None, beside: float | None
) -> None:
    there = batches(samples_of("s3://bucket/spikes.zarr", cache, beside), workers)
    here = batches(samples_of(str(folder / "spikes.zarr"), None, beside), 0)
    assert len(there) == len(here) == 6
    for one, other in zip(there, here, strict=True):
        assert ("voxels" in one, "spikes" in one) == (beside is None, beside is not None)
        for name, value in other.items():
            np.testing.assert_array_equal(one[name], value)


def test_opening_and_reading_wait_for_several_answers_at_once(server: BucketServer) -> None:
    server.set_delay(100)
    server.counters()
    began = time.perf_counter()
    samples = samples_of("s3://bucket/spikes.zarr")
    samples.samples([0] * 4, range(4))
    seconds = time.perf_counter() - began
    counted = server.counters()
    requests = counted.requests + counted.lists
    assert counted.most_at_once >= 8
    assert seconds < 0.1 * requests / 2


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batches_say_what_they_took_from_the_bucket(
    server: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv(LIMIT, "100MB")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    took = []
    for _ in range(2):
        samples = samples_of("s3://bucket/spikes.zarr")
        server.counters()
        plan, clock = StepPlan(samples.index, 2), Clock(torch.device("cpu"))
        with open_loader(samples, plan, 0, 6, workers=workers, pin=False) as steps:
            for step in steps:
                clock.count(step)
        counted = server.counters()
        assert clock.traffic.fetched == counted.bytes
        assert clock.traffic.requests == counted.requests
        took.append(clock.remote())
    first, second = took
    assert 0 < first["fetched_over_used"] < 1.5
    assert first["requests_per_step"] > 1
    assert second == {"fetched_over_used": 0, "requests_per_step": 0}
    clock.restart()
    assert clock.remote() == {"fetched_over_used": None, "requests_per_step": 0}, "read ahead"


def test_a_cache_that_cannot_be_used_is_an_error_before_anything_is_read(
    server: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(LIMIT, "100MB")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    with pytest.raises(StoreError, match=f"{tmp_path}/file: .*; choose another folder by {FOLDER}"):
        samples_of("s3://bucket/spikes.zarr")


def test_nothing_is_said_of_buckets_where_none_is_read(folder: Path) -> None:
    samples, clock = samples_of(str(folder / "spikes.zarr")), Clock(torch.device("cpu"))
    with open_loader(samples, StepPlan(samples.index, 2), 0, 2, workers=0, pin=False) as steps:
        for step in steps:
            clock.count(step)
    assert clock.remote() == {}


@pytest.mark.slow
def test_a_cache_that_fails_in_the_workers_is_one_word_of_the_training_process(
    server: BucketServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(LIMIT, "100MB")
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    # The command line's own handler writes what the workers must not.
    monkeypatch.setattr(logging.getLogger("spikedeblur"), "handlers", [])
    samples = samples_of("s3://bucket/spikes.zarr")
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    clock = Clock(torch.device("cpu"))
    with open_loader(samples, StepPlan(samples.index, 2), 0, 6, workers=2, pin=False) as steps:
        for step in steps:
            clock.count(step)
    assert len(caplog.records) == 1
    assert "the disk cache takes nothing more" in caplog.text
    assert "disk cache" not in capfd.readouterr().err


@pytest.mark.parametrize(("share", "epochs"), [(0, [1, 1]), (1, [1, 0])])
def test_the_model_of_the_cache_says_what_reading_takes(
    folder: Path,
    server: BucketServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: int,
    epochs: list[int],
) -> None:
    """A cache that holds all, and none; beside chunks, only indices and small arrays come."""
    from tests.benchmarks import feeding

    sequences = open_store(str(folder / "spikes.zarr"), "train", bins=8)
    steps = feeding.steps_of(sequences, clip=2, crop=16, batch=2)
    model = feeding.ModelCache(share * 1e9)
    monkeypatch.setenv(LIMIT, f"{100 * share}MB")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    samples = samples_of("s3://bucket/spikes.zarr")
    plan = StepPlan(samples.index, 2)
    for epoch, fetches in enumerate(epochs):
        spans = [s for step in steps[epoch] for read in step for s in model.fetched(read)]
        server.counters()
        for planned in plan.batches(epoch * plan.steps_an_epoch, (epoch + 1) * plan.steps_an_epoch):
            for clip in planned.clips.tolist():
                samples.sample(epoch, clip)
        counted = server.counters().bytes
        told = sum(stop - start for start, stop in spans)
        assert (told > 0) == bool(fetches)
        assert told <= counted <= told + (20_000 if epoch == 0 else 0)


@pytest.mark.slow
def test_what_a_loader_transfers_stays_near_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark's figures, with limits for a busy machine."""
    from spikedeblur.pipeline.voxelize import Workers, voxelize_manifest
    from tests.benchmarks import store, transfer

    voxelize_manifest(
        store.record(tmp_path / "recording"), tmp_path / "s.zarr", workers=Workers(count=1)
    )
    found = transfer.figures(tmp_path, "s.zarr", steps=6)
    volume, requests, at_once, *rates = (figure.value for figure in found)
    assert volume <= 1.15
    assert requests <= 1.15
    assert at_once >= 16
    assert min(rates) >= 0.1, [os.getloadavg(), rates]
