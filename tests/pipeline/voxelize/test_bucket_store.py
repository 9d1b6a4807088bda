"""A store in a bucket: the same job, the same bytes, the same tensors as in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet
from s3_server import environment, make_bucket, s3_server

from spikedeblur.pipeline.inspect import InspectError, inspect
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.sequences.unified import open_windows
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.voxelize import job as job_module
from spikedeblur.pipeline.voxelize.task import write_shard


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        make_bucket(address, "spikes")
        yield address


@pytest.fixture
def url(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> str:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://spikes/{tmp_path.name}/{kind}.zarr"


def contents(location: str) -> dict[str, bytes | None]:
    storage = open_storage(location)
    return {key: storage.read(key) for key in sorted(storage.sizes())}


def test_bucket_holds_the_bytes_that_a_folder_would(
    data: DataSet, store: Path, url: str, kind: str
) -> None:
    summary = data.voxelize(url, kind=kind)  # type: ignore[arg-type]
    assert summary.sequences_written == 2
    assert contents(url) == contents(str(store))
    again = data.voxelize(url)  # type: ignore[arg-type]
    assert (again.sequences_kept, again.windows) == (2, 0)


def test_crops_read_from_a_bucket_equal_those_of_a_folder(
    data: DataSet, store: Path, url: str, kind: str
) -> None:
    data.voxelize(url, kind=kind)  # type: ignore[arg-type]
    for here, there in zip(
        open_windows(store, "val", bins=8), open_windows(url, "val", bins=8), strict=True
    ):
        np.testing.assert_array_equal(
            here.voxels(1, 4, (3, 17), (10, 31)), there.voxels(1, 4, (3, 17), (10, 31))
        )
        np.testing.assert_array_equal(here.sharp(0, 5), there.sharp(0, 5))
        np.testing.assert_array_equal(here.frame_index, there.frame_index)


def test_inspect_describes_a_store_in_a_bucket_as_in_a_folder(
    data: DataSet, store: Path, url: str, kind: str
) -> None:
    data.voxelize(url, kind=kind)  # type: ignore[arg-type]
    here, there = inspect(store), inspect(url)
    assert (there.path, there.kind) == (url, "store")
    assert (there.facts, there.table) == (here.facts, here.table)
    with pytest.raises(InspectError, match="copy the file here"):
        inspect("s3://spikes/recording.dat")


def test_run_stopped_before_its_mark_is_refused_and_continues(
    data: DataSet, url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(task):
        if task.record.seq == "val/b/two":
            raise KeyboardInterrupt
        return write_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            data.voxelize(url, kind=kind)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="val/b/two not complete"):
        open_store(url)
    assert data.voxelize(url).sequences_kept == 1  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        open_store(url, "val")[0].voxels(0, 5), data.voxels("val/b/two", 8)
    )


def test_shard_missing_in_a_bucket_is_named(data: DataSet, url: str, spikes_shard: str) -> None:
    data.voxelize(url, kind=Path(url).stem)  # type: ignore[arg-type]
    open_storage(url).remove(f"train/a/one/{spikes_shard}")
    with pytest.raises(StoreError, match=rf"train/a/one: {spikes_shard} is missing"):
        open_store(url)
