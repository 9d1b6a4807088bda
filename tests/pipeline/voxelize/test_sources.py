"""Manifests and data sets in a bucket: the same store, the same findings, errors that name them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from data_sets import DataSet
from files_of import files_of
from s3_server import environment, make_bucket, s3_server

from spikedeblur.pipeline.align.manifest import ManifestError
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.voxelize.check import check_store
from spikedeblur.pipeline.voxelize.sources import check_manifest_at


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        make_bucket(address, "films")
        yield address


@pytest.fixture
def bucket(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: DataSet
) -> Iterator[str]:
    """A URL below which manifest and data set lie as they do in their folder."""
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    url = f"s3://films/{tmp_path.name}"
    storage = open_storage(url)
    for path in [data.manifest, *sorted(data.root.rglob("*"))]:
        if path.is_file():
            storage.write(path.relative_to(data.manifest.parent).as_posix(), [path.read_bytes()])
    yield url
    storage.remove("data")


def voxelize(manifest: str, store: Path | str, **options: object) -> object:
    what = VoxelizeOptions(bins=8, **options)  # type: ignore[arg-type]
    return voxelize_manifest(manifest, store, what, Workers(count=1))


def test_store_from_a_bucket_is_the_store_from_a_folder(
    data: DataSet, bucket: str, tmp_path: Path, kind: str
) -> None:
    data.voxelize(tmp_path / "here.zarr", kind=kind)
    voxelize(f"{bucket}/align.json", tmp_path / "there.zarr", kind=kind)
    assert files_of(tmp_path / "there.zarr") == files_of(tmp_path / "here.zarr")
    again = voxelize(f"{bucket}/align.json", tmp_path / "there.zarr")
    assert again.sequences_kept == 2
    assert check_store(tmp_path / "there.zarr", manifest=f"{bucket}/align.json").whole


def test_manifest_by_file_url_is_the_file(data: DataSet, tmp_path: Path) -> None:
    voxelize(data.manifest.as_uri(), (tmp_path / "a.zarr").as_uri())
    assert (tmp_path / "a.zarr/zarr.json").is_file()
    assert check_manifest_at(data.manifest.as_uri()).files == 22


def test_check_from_a_bucket_finds_what_it_finds_in_a_folder(data: DataSet, bucket: str) -> None:
    here = check_manifest_at(data.manifest)
    there = check_manifest_at(f"{bucket}/align.json")
    assert (there.path, there.root) == (f"{bucket}/align.json", f"{bucket}/data")
    assert there.sequences == here.sequences
    open_storage(bucket).remove("data/raw/train/a/one/blur/0004.png")
    found = check_manifest_at(f"{bucket}/align.json")
    assert [f.kind for s in found.sequences for f in s.findings if f.kind == "missing"]


def test_file_that_is_missing_or_another_in_the_bucket_is_named(
    bucket: str, tmp_path: Path
) -> None:
    storage = open_storage(bucket)
    content = storage.read("data/raw/val/b/two/spike.dat")
    assert content is not None
    storage.write("data/raw/val/b/two/spike.dat", [content + b"0"])
    with pytest.raises(StoreError, match=r"val/b/two: raw/val/b/two/spike\.dat changed since it"):
        voxelize(f"{bucket}/align.json", tmp_path / "s.zarr")
    storage.remove("data/raw/val/b/two/spike.dat")
    with pytest.raises(StoreError, match=r"spike\.dat is in the manifest but not in the bucket"):
        voxelize(f"{bucket}/align.json", tmp_path / "s.zarr")


def test_manifest_that_is_missing_or_leaves_its_bucket_is_named(
    data: DataSet, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=r"none\.json: no manifest there"):
        voxelize(f"{bucket}/none.json", tmp_path / "s.zarr")
    text = data.manifest.read_text().replace('"root": "data"', '"root": "../../../data"')
    open_storage(bucket).write("far.json", [text.encode()])
    with pytest.raises(ManifestError, match=r"far\.json: .* lies outside of the bucket"):
        voxelize(f"{bucket}/far.json", tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="expected a bucket 'nobucket'"):
        voxelize("s3://nobucket/align.json", tmp_path / "s.zarr")
