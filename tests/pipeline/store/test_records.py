"""Places where a store may begin, and the records of its sequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spikedeblur.pipeline.host.files import path_aside
from spikedeblur.pipeline.host.locks import LOCK, HeldError
from spikedeblur.pipeline.storage.base import Storage, StoreError
from spikedeblur.pipeline.storage.checksum import content_checksum
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.store import records
from spikedeblur.pipeline.store.records import (
    begin_sequence,
    exclusive,
    find_sequences,
    find_split,
    is_free,
    is_plain_group,
    lacks_root,
    mark_complete,
    read_attributes,
    read_record,
    read_splits,
    record_checksum,
    require_record,
    root_kind,
    write_parents,
    write_root,
    write_splits,
)
from spikedeblur.pipeline.store.schema import STORE, Completion, Kind, SequenceRecord


def record(seq: str = "train/a/b", kind: Kind = "counts", **more: Any) -> SequenceRecord:
    return SequenceRecord(
        kind=kind,
        seq=seq,
        bins=4,
        geometry="8x16,bottom-up",
        rate=20000.0,
        first=0.0,
        gain=0.5,
        windows=3,
        stored_samples=100 if kind == "packed" else None,
        longest_window=40,
        shortest_window=30,
        voxel_shape=(8, 16),
        frame_shape=(16, 32),
        has_sharp=True,
        plan_sha256="0" * 64,
        **more,
    )


COMPLETE = Completion(files={"c": 1}, crc32={"c": "00"}, sources={}, manifest_sha256="1" * 64)


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "store")


def test_a_root_that_another_run_is_writing_is_nothing_foreign(tmp_path: Path) -> None:
    path_aside(tmp_path / "zarr.json", "partial").write_bytes(b"{")
    assert lacks_root(open_storage(tmp_path), "packed")
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(StoreError, match="found something else"):
        lacks_root(open_storage(tmp_path), "packed")


@pytest.mark.parametrize("kind", ["packed", "counts", "npy"])
def test_a_root_is_lacking_until_it_is_written_and_then_is_of_its_kind(place, kind) -> None:
    assert root_kind(place) is None
    assert lacks_root(place, kind)
    write_root(place, kind)
    assert root_kind(place) == kind
    assert not lacks_root(place, kind)
    other = "packed" if kind != "packed" else "counts"
    with pytest.raises(StoreError, match=f"expected a store of kind {other}, found {kind}"):
        lacks_root(place, other)
    name = "voxels.json" if kind == "npy" else "zarr.json"
    assert [path.name for path in Path(place.location).iterdir()] == [name]
    attributes = read_attributes(place, name)
    assert attributes is not None
    assert attributes.pop("crc32") == content_checksum(attributes)


def test_the_data_set_itself_may_hold_npy_and_needs_no_root(place) -> None:
    Path(place.location).mkdir()
    (Path(place.location) / "film.mp4").write_bytes(b"")
    assert not lacks_root(place, "npy", may_hold_source=True)
    write_root(place, "packed")
    with pytest.raises(StoreError, match="found packed"):
        lacks_root(place, "npy", may_hold_source=True)


def test_a_damaged_root_is_refused_or_lacks_where_it_is_to_be_mended(place) -> None:
    place.write("zarr.json", [b"{"])
    with pytest.raises(StoreError, match="expected JSON"):
        lacks_root(place, "packed")
    assert lacks_root(place, "packed", mend=True)
    write_root(place, "packed")
    assert not lacks_root(place, "packed", mend=True)


def test_a_root_that_another_run_wrote_at_that_moment_is_taken(place, monkeypatch) -> None:
    def look(store: Storage) -> bool:
        write_root(store, "packed")  # between the first look and this one
        return False

    monkeypatch.setattr(records, "is_free", look)
    assert not lacks_root(place, "packed")


@pytest.mark.parametrize(
    "attributes", [{}, {"format": "other.store"}, STORE.header() | {"kind": 3}, STORE.header()]
)
def test_what_names_no_kind_is_of_none(place, attributes) -> None:
    content = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    place.write("zarr.json", [json.dumps(content).encode()])
    assert root_kind(place) is None


def test_a_place_is_free_without_entries_but_those_of_a_run_that_begins(tmp_path: Path) -> None:
    assert is_free(open_storage(tmp_path / "none"))
    assert is_free(open_storage(tmp_path))
    (tmp_path / LOCK).write_bytes(b"")
    assert is_free(open_storage(tmp_path))
    (tmp_path / "x.partial").write_bytes(b"")
    assert is_free(open_storage(tmp_path))
    (tmp_path / "x").write_bytes(b"")
    assert not is_free(open_storage(tmp_path))
    assert not is_free(open_storage(tmp_path / "x")), "a file is in the way"


def test_splits_are_those_that_names_do_not_say(place) -> None:
    write_root(place, "packed")
    assert read_splits(place) == {}
    write_splits(place, {"train/a": "train", "train/b": "val"})
    assert read_splits(place) == {"train/b": "val"}
    write_splits(place, {"train/c": "test"})
    assert read_splits(place) == {"train/b": "val", "train/c": "test"}, "others stay"
    write_splits(place, {"train/b": "train"})
    assert read_splits(place) == {"train/c": "test"}, "moved back"
    assert root_kind(place) == "packed"
    attributes = read_attributes(place, "zarr.json")
    assert attributes is not None
    assert attributes.pop("crc32") == content_checksum(attributes)


def test_splits_that_stay_are_not_written_again(place, monkeypatch) -> None:
    write_root(place, "packed")
    write_splits(place, {"train/b": "val"})
    monkeypatch.setattr(type(place), "write", None)
    write_splits(place, {"train/b": "val", "train/a": "train"})


@pytest.mark.parametrize("splits", [["a"], {"train/a": 1}, 3])
def test_splits_of_another_form_are_refused(place, splits) -> None:
    content = {"attributes": {"splits": splits}, "zarr_format": 3, "node_type": "group"}
    place.write("zarr.json", [json.dumps(content).encode()])
    with pytest.raises(StoreError, match="expected splits by sequence"):
        read_splits(place)


@pytest.mark.parametrize("kind", ["packed", "counts", "npy"])
def test_a_record_reads_back_and_is_complete_when_it_is_marked(place, kind) -> None:
    begun = record(kind=kind)
    folder = place.child(begun.seq)
    assert read_record(folder, kind) is None
    begin_sequence(place, begun)
    assert read_record(folder, kind) == begun
    mark_complete(place, begun, COMPLETE)
    whole = read_record(folder, kind)
    assert whole is not None
    assert whole.complete is not None
    assert whole.complete.model_copy(update={"record_crc32": None}) == COMPLETE
    name = "spike_vox/voxels.json" if kind == "npy" else "zarr.json"
    assert whole.complete.record_crc32 == record_checksum(read_attributes(folder, name) or {})
    groups = [path.parent.name for path in Path(place.location).rglob("zarr.json")]
    assert sorted(groups) == ([] if kind == "npy" else ["a", "b", "train"])


def test_a_whole_record_is_on_disk_before_the_run_goes_on(place, monkeypatch) -> None:
    durable: list[tuple[str, bool]] = []
    write = type(place).write

    def noted(self, key, parts, *, durable_=durable, durable=True):
        durable_.append((self.location.removeprefix(place.location), durable))
        return write(self, key, parts, durable=durable)

    monkeypatch.setattr(type(place), "write", noted)
    begin_sequence(place, record())
    assert durable == [("/train", False), ("/train/a", False), ("/train/a/b", False)]
    mark_complete(place, record(), COMPLETE)
    assert durable[3:] == [("/train/a/b", True)]


def test_groups_above_are_written_where_one_is_not_whole(place) -> None:
    write_parents(place, "train/a/b")
    above = Path(place.location, "train", "zarr.json")
    assert is_plain_group(place.child("train"))
    assert is_plain_group(place.child("train/a"))
    assert not is_plain_group(place.child("train/a/b"))
    for damage in (b"{", b'{"attributes": {"x": 1}, "zarr_format": 3, "node_type": "group"}'):
        above.write_bytes(damage)
        assert not is_plain_group(place.child("train"))
        write_parents(place, "train/a/b")
        assert is_plain_group(place.child("train"))


def test_sequences_are_found_by_their_places_in_order(place) -> None:
    write_root(place, "counts")
    names = ["train/b", "train/a/y", "train/a/x/z", "val/c", "train/a-b"]
    for name in names:
        begin_sequence(place, record(name))
    found = dict(find_sequences(place))
    assert list(found) == ["train/a/x/z", "train/a/y", "train/a-b", "train/b", "val/c"]
    assert found["val/c"] == record("val/c")
    assert [seq for seq, _ in find_sequences(place, "train/a")] == ["train/a/x/z", "train/a/y"]
    assert list(find_sequences(place, "test")) == []


def test_a_split_has_those_that_were_moved_to_it(place) -> None:
    write_root(place, "counts")
    for name in ("train/a", "train/b", "val/c"):
        begin_sequence(place, record(name))
    write_splits(place, {"train/b": "val", "val/c": "train", "train/none-yet": "val"})
    assert [seq for seq, _ in find_split(place, "train")] == ["train/a", "val/c"]
    assert [seq for seq, _ in find_split(place, "val")] == ["train/b"]
    assert list(find_split(place, "test")) == []


def test_a_record_without_a_sequence_is_none_and_a_wrong_one_is_refused(place) -> None:
    write_root(place, "counts")
    assert read_record(place) is None
    begin_sequence(place, record())
    path = Path(place.location, "train/a/b/zarr.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"attributes": {"seq": "train/a/b"}}))
    assert read_record(place.child("train/a/b")) is None, "another tool's"
    content["attributes"]["rate"] = -1.0
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="rate"):
        read_record(place.child("train/a/b"))


def test_a_whole_record_must_be_what_was_written(place) -> None:
    mark_complete(place, record(), COMPLETE)
    folder = place.child("train/a/b")
    whole = read_record(folder)
    assert whole is not None
    require_record(folder, whole)
    require_record(folder, record())  # of an earlier release, without a checksum
    path = Path(folder.location, "zarr.json")
    path.write_text(path.read_text().replace('"gain": 0.5', '"gain": 0.25'))
    with pytest.raises(StoreError, match="is not what was written"):
        require_record(folder, whole)
    path.unlink()
    with pytest.raises(StoreError, match="is not what was written"):
        require_record(folder, whole)
    with pytest.raises(StoreError, match="is not what was written"):
        require_record(folder, record())


def test_the_checksum_of_a_record_is_that_of_all_but_itself() -> None:
    attributes = {"a": 1, "complete": {"b": 2, "record_crc32": "x"}}
    assert record_checksum(attributes) == content_checksum({"a": 1, "complete": {"b": 2}})
    assert attributes["complete"]["record_crc32"] == "x"


@pytest.mark.parametrize(
    ("content", "attributes"),
    [
        (b'{"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}', {"a": 1}),
        (b'{"zarr_format": 3, "node_type": "group"}', {}),
        (b'{"zarr_format": 3, "node_type": "group", "attributes": [1]}', {}),
        (b"[1]", {}),
    ],
)
def test_attributes_are_those_of_a_group(place, content, attributes) -> None:
    assert read_attributes(place, "zarr.json") is None
    place.write("zarr.json", [content])
    assert read_attributes(place, "zarr.json") == attributes


@pytest.mark.parametrize(
    "content",
    [b'{"zarr_format": 2, "node_type": "group"}', b'{"zarr_format": 3, "node_type": "array"}'],
)
def test_what_is_no_group_of_zarr_3_is_refused(place, content) -> None:
    place.write("zarr.json", [content])
    with pytest.raises(StoreError, match="expected a group of Zarr v3"):
        read_attributes(place, "zarr.json")


def test_another_files_attributes_are_its_content(place) -> None:
    place.write("voxels.json", [b'{"a": 1}'])
    assert read_attributes(place, "voxels.json") == {"a": 1}
    place.write("voxels.json", [b"{"])
    with pytest.raises(StoreError, match="expected JSON, found something else"):
        read_attributes(place, "voxels.json")


def test_a_store_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    place = open_storage(tmp_path)
    with exclusive(place), pytest.raises(HeldError, match="another `voxelize`"), exclusive(place):
        pass
    with exclusive(place):
        pass


def test_a_bucket_is_written_by_whoever_comes_and_is_free_without_folders(
    place, monkeypatch
) -> None:
    write_root(place, "counts")
    monkeypatch.setattr(type(place), "is_local", False)
    with exclusive(place), exclusive(place):
        pass
    assert is_free(place)
    begin_sequence(place, record())
    assert not is_free(place)
    assert [seq for seq, _ in find_sequences(place)] == ["train/a/b"]
