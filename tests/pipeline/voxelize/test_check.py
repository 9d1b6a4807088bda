"""Bit rot, lost files and changed sources are found; what is damaged is made anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from data_sets import DataSet, make_data_set
from files_of import files_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikedeblur.pipeline.host.reporter import Reporter, Sized
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.store.records import NPY_ROOT
from spikedeblur.pipeline.voxelize import check
from spikedeblur.pipeline.voxelize.check import check_store


def problems(store: Path, **options: object) -> set[tuple[str, str]]:
    found = check_store(store, **options)  # type: ignore[arg-type]
    return {(finding.problem, finding.file) for finding in found.findings}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a store of each kind of it."""
    folder = tmp_path_factory.mktemp("made")
    data = make_data_set(folder, centres=(2, 4))
    for kind in ("packed", "counts"):
        data.voxelize(folder / kind, kind=kind)
    data.voxelize(folder / "npy", format="npy")
    return folder


@pytest.mark.parametrize("kind", ["packed", "counts", "npy"])
def test_a_whole_store_has_no_findings_and_every_file_is_read(made: Path, kind: str) -> None:
    found = check_store(made / kind, manifest=made / "align.json")
    assert found.whole
    assert found.sequences == 2
    assert found.sources == 2 * (1 + 2 * 2)  # a .dat and two pictures of each window
    names = files_of(made / kind)
    records = [name for name in names if name.count("/") < 4 and name.endswith(".json")]
    compared = {n: content for n, content in names.items() if n not in records}
    if kind == "npy":  # side files are no data
        compared = {n: c for n, c in compared.items() if not n.endswith(".json")}
    assert found.files == len(compared)
    assert found.bytes == sum(map(len, compared.values()))


@pytest.mark.parametrize("kind", ["packed", "counts", "npy"])
def test_the_time_left_goes_by_the_bytes_of_each_sequence(
    made: Path, kind: str, monkeypatch
) -> None:
    told: list[list[float]] = []

    def sized(reporter: Reporter, sizes: list[float]) -> Sized:
        told.append(sizes)
        return Sized(reporter, sizes)

    monkeypatch.setattr(check, "Sized", sized)
    found = check_store(made / kind)
    check_store(made / kind, manifest=made / "align.json")
    alone, with_sources = told
    assert len(alone) == found.sequences
    assert 0.8 * found.bytes < sum(alone) <= found.bytes  # metadata, a few bytes, are left out
    assert all(more > less > 0 for more, less in zip(with_sources, alone, strict=True))


@pytest.mark.parametrize("kind", ["packed", "counts", "npy"])
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    where=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    bit=st.integers(0, 7),
)
def test_any_flipped_bit_of_any_file_is_found(
    made: Path, kind: str, where: tuple[float, float], bit: int
) -> None:
    files = [p for p in sorted((made / kind).rglob("*")) if p.is_file()]
    path = files[int(where[0] * len(files))]
    before = path.read_bytes()
    after = bytearray(before)
    after[int(where[1] * len(after))] ^= 1 << bit
    path.write_bytes(after)
    try:
        try:
            found = not check_store(made / kind).whole
        except StoreError:
            found = True  # the store's own mark
        if path.suffix == ".json" and not found:
            # Spaces, and the side file of kind npy, which the record repeats.
            harmless = path.name == "spikes.json" or json.loads(after) == json.loads(before)
            assert harmless, (path, after)
        else:
            assert found, path
    finally:
        path.write_bytes(before)


def test_a_mark_whose_checksum_lost_its_name_is_found(made: Path) -> None:
    path = made / "npy" / NPY_ROOT
    before = path.read_bytes()
    path.write_bytes(before.replace(b"crc32", b"crb32"))
    try:
        assert [finding.file for finding in check_store(made / "npy").findings] == [NPY_ROOT]
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", [b'"format"', b'"seq"'])
def test_a_record_that_lost_what_marks_it_is_found(made: Path, name: bytes) -> None:
    path = made / "packed/train/a/one/zarr.json"
    before = path.read_bytes()
    assert name in before
    path.write_bytes(before.replace(name, name.replace(b'"', b'"x', 1)))
    try:
        findings = check_store(made / "packed").findings
        assert ("metadata", "zarr.json") in {(f.problem, f.file) for f in findings}
    finally:
        path.write_bytes(before)


def test_a_lost_a_cut_and_a_longer_file_are_told_apart(
    data: DataSet, store: Path, spikes_shard: str
) -> None:
    assert problems(store) == set()
    folder = store / "val/b/two"
    (folder / "blur/c/0/0/0/0").unlink()
    with (folder / spikes_shard).open("ab") as file:
        file.write(b"x")
    os.truncate(folder / "sharp/c/0/0/0/0", 10)
    assert problems(store) == {
        ("missing", "blur/c/0/0/0/0"),
        ("size", spikes_shard),
        ("size", "sharp/c/0/0/0/0"),
    }


def test_a_chunk_that_a_shard_lacks_is_found_even_without_checksums(
    data: DataSet, store: Path
) -> None:
    """As a tool leaves it that writes no chunks of zeros."""
    shard = store / "val/b/two/blur/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    index = np.frombuffer(content[-16 * 5 - 4 : -4], "<u8").reshape(5, 2).copy()  # five windows
    index[2] = 2**64 - 1
    content[-16 * 5 - 4 : -4] = index.tobytes()
    content[-4:] = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(content)
    zeros = zarr.open_array(store / "val/b/two/blur", mode="r")[2]
    assert not np.asarray(zeros).any()  # what Zarr makes of it
    assert ("damaged", "blur/c/0/0/0/0") in problems(store)
    without = store / "val/b/two/zarr.json"
    record = json.loads(without.read_text())
    del record["attributes"]["complete"]["crc32"]
    del record["attributes"]["complete"]["record_crc32"]
    without.write_text(json.dumps(record))
    assert problems(store) == {("chunk", "blur/c/0/0/0/0")}
    assert check_store(store).without_checksums == 1


def test_a_changed_a_lost_and_an_untouched_source(data: DataSet, store: Path) -> None:
    dat = data.root / "raw/train/a/one/spike.dat"
    stat = dat.stat()
    content = bytearray(dat.read_bytes())
    content[5] ^= 1
    dat.write_bytes(content)
    os.utime(dat, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and time tell nothing
    (data.root / "raw/val/b/two/sharp/0004.png").unlink()
    assert problems(store) == set()
    assert problems(store, manifest=data.manifest) == {
        ("source-changed", "raw/train/a/one/spike.dat"),
        ("source-missing", "raw/val/b/two/sharp/0004.png"),
    }


def test_sequences_that_are_absent_or_unfinished_are_named(data: DataSet, store: Path) -> None:
    record = json.loads((store / "val/b/two/zarr.json").read_text())
    record["attributes"]["complete"] = None
    (store / "val/b/two/zarr.json").write_text(json.dumps(record))
    shutil.rmtree(store / "train")
    assert problems(store, manifest=data.manifest) == {("absent", ""), ("incomplete", "zarr.json")}


def test_damage_is_made_anew_and_the_rest_is_kept(
    data: DataSet, store: Path, spikes_shard: str
) -> None:
    whole = files_of(store)
    shard = store / "val/b/two" / spikes_shard
    content = bytearray(shard.read_bytes())
    content[7] ^= 4
    shard.write_bytes(content)
    kind = "packed" if "spikes" in spikes_shard else "counts"
    assert data.voxelize(store, kind=kind).sequences_kept == 2  # names and sizes are right
    summary = data.voxelize(store, kind=kind, check=True)
    assert (summary.sequences_written, summary.sequences_kept) == (1, 1)
    assert files_of(store) == whole


@pytest.mark.parametrize("name", ["zarr.json", "val/zarr.json", "val/b/two/zarr.json"])
def test_damaged_metadata_is_made_anew(data: DataSet, store: Path, kind: str, name: str) -> None:
    whole = files_of(store)
    (store / name).write_bytes(b"\x00" * 99)
    assert data.voxelize(store, kind=kind, check=True).sequences_written <= 1
    assert files_of(store) == whole


def test_checking_never_replaces_what_is_not_ours(data: DataSet, tmp_path: Path) -> None:
    data.voxelize(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr/val/b/two")
    (tmp_path / "s.zarr/val/b/two").mkdir()
    (tmp_path / "s.zarr/val/b/two/thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="other files"):
        data.voxelize(tmp_path / "s.zarr", check=True)
    assert (tmp_path / "s.zarr/val/b/two/thesis.tex").read_text() == "mine"


def test_no_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a store"):
        check_store(tmp_path)


def test_a_stores_content_hash_does_not_depend_on_checksums(data: DataSet, store: Path) -> None:
    """So that a run begun on a store of an earlier release goes on."""
    from spikedeblur.pipeline.sequences.provenance import describe_data

    before = describe_data(open_store(store))
    for path in store.rglob("zarr.json"):
        content = json.loads(path.read_text())
        if "complete" in content["attributes"]:
            del content["attributes"]["complete"]["crc32"]
            del content["attributes"]["complete"]["record_crc32"]
            path.write_text(json.dumps(content))
    assert describe_data(open_store(store)) == before
