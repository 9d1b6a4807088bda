"""One contract for every storage that a store can lie in."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.storage.base import Storage, StoreError
from spikedeblur.pipeline.storage.locate import open_storage

CONTENT = np.random.default_rng(0).bytes(300_000)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "s.zarr")
    return request.getfixturevalue("bucket")


def test_what_is_written_is_read(storage):
    assert storage.write("train/a/c/0", [b"12", memoryview(b"345")]) == 5
    assert storage.read("train/a/c/0") == b"12345"
    assert storage.size("train/a/c/0") == 5


def test_parts_may_be_of_any_type_and_empty(storage):
    numbers = np.arange(6, dtype="<u4").reshape(2, 3)
    assert storage.write("c", [memoryview(numbers), b"", memoryview(numbers[:0]), b"x"]) == 25
    assert storage.read("c") == numbers.tobytes() + b"x"
    assert storage.write("none", []) == 0
    assert storage.read("none") == b""
    assert storage.size("none") == 0


def test_names_with_spaces_and_signs_come_back_as_they_were(storage):
    name = "scène 1/100%25 #2.bin"
    storage.write(name, [b"1"])
    assert storage.read(name) == b"1"
    assert storage.sizes() == {name: 1}
    assert storage.folders() == ["scène 1"]


def test_a_write_replaces_the_whole_file(storage):
    storage.write("c", [b"a longer content"])
    storage.write("c", [b"new"], durable=False)
    assert storage.read("c") == b"new"
    assert bytes(storage.read_ranges("c", [(0, 3)])[0]) == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(storage):
    storage.write("d/c", [b"old"])
    with pytest.raises(TypeError):
        storage.write("d/c", [b"new", "text"])
    assert storage.read("d/c") == b"old"
    assert storage.sizes() == {"d/c": 3}
    if storage.is_local:
        assert _names(Path(storage.location) / "d") == ["c"]


def test_what_is_missing_is_none_or_empty(storage):
    assert storage.read("zarr.json") is None
    assert storage.size("zarr.json") is None
    assert storage.sizes() == {}
    assert storage.folders("train") == []
    storage.write("a/b", [b"1"])
    # A folder isn't a file, and a file isn't a folder.
    assert storage.read("a") is None
    assert storage.size("a") is None
    assert storage.read("a/b/c") is None
    assert storage.size("a/b/c") is None
    assert storage.sizes("a/b") == {}
    assert storage.folders("a/b") == []


def test_sizes_of_some_files_are_those_of_the_files_that_are_there(storage):
    storage.write("a/b", [b"12"])
    storage.write("a/c", [b"1"])
    assert storage.sizes_of(["a/b", "a", "a/x", "a/b/c"]) == {"a/b": 2}
    assert storage.child("a").sizes_of(["b"]) == {"b": 2}


def test_a_file_larger_than_the_limit_is_refused(storage):
    storage.write("zarr.json", [bytes(100)])
    assert storage.read("zarr.json", limit=100) == bytes(100)
    with pytest.raises(StoreError, match=r"zarr\.json: expected at most 99 bytes, found 100"):
        storage.read("zarr.json", limit=99)


def test_sizes_and_folders_leave_out_what_is_hidden_or_half_written(storage):
    kept = {"zarr.json": 1, "train/a/zarr.json": 2, "train/a/voxels/c/0/0": 3, "val/b/x": 4}
    hidden = ("train/.a.removed/x", "train/a/.c.partial", "train/b.partial", ".lock", ".x/y/z")
    for key, size in kept.items():
        storage.write(key, [bytes(size)])
    for key in hidden:
        storage.write(key, [b"1"])
    assert storage.sizes() == kept
    below = {"train/a/zarr.json": 2, "train/a/voxels/c/0/0": 3}
    assert storage.sizes("train/a") == below
    assert storage.child("train").sizes("a") == {key[6:]: n for key, n in below.items()}
    assert storage.sizes("trai") == {}
    assert storage.folders() == ["train", "val"]
    assert storage.folders("train") == ["a"]
    assert storage.folders("train/a/voxels/c/0") == []


def test_a_child_is_the_storage_below(storage):
    child = storage.child("train/a")
    child.write("x", [b"1"])
    assert storage.read("train/a/x") == b"1"
    assert child.location == f"{storage.location}/train/a" == str(child)
    assert child.is_local is storage.is_local
    assert open_storage(child.location).location == child.location
    assert storage.child("").location == storage.location


def test_remove_takes_all_below_and_nothing_beside(storage):
    for key in ("train/a/zarr.json", "train/a/.hidden", "train/a/c/0", "train/ab/c", "one"):
        storage.write(key, [b"1"])
    storage.remove("train/a")
    storage.remove("train/a")
    storage.remove("one")
    assert storage.sizes() == {"train/ab/c": 1}
    storage.remove("")
    assert storage.sizes() == {}
    if storage.is_local:
        assert _names(Path(storage.location).parent) == []


def test_ranges_are_the_bytes_at_each_span_in_the_order_asked_for(storage):
    storage.write("c", [CONTENT])
    rng = np.random.default_rng(1)
    starts = rng.integers(0, len(CONTENT), 300)
    spans = [(int(a), int(rng.integers(0, min(900, len(CONTENT) - a) + 1))) for a in starts]
    spans += [(0, len(CONTENT)), (len(CONTENT) - 1, 1), (0, 0), (7, 1)]
    got = storage.read_ranges("c", spans)
    assert [bytes(part) for part in got] == [CONTENT[a : a + n] for a, n in spans]
    assert storage.read_ranges("c", []) == []


def test_ranges_of_a_replaced_file_are_the_new_ones(storage):
    for content in (b"first", b"secnd", b"a longer one"):
        storage.write("c", [content])
        assert bytes(storage.read_ranges("c", [(0, len(content))])[0]) == content


@pytest.mark.parametrize(
    "spans",
    [[(0, 11)], [(2, 3), (10, 1)], [(0, 1), (200_000, 5)], [(-1, 2)], [(0, -1)], [(1, 2**64)]],
)
def test_a_span_outside_the_file_is_refused(storage, spans):
    storage.write("d/c", [b"0123456789"])
    with pytest.raises(StoreError, match=r"d/c: .*cut short"):
        storage.read_ranges("d/c", spans)


def test_ranges_of_a_missing_file_name_it(storage):
    with pytest.raises(StoreError, match="train/a/c/0: expected a file, found none"):
        storage.read_ranges("train/a/c/0", [(0, 1)])


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/", "./a", "a\x00"])
def test_a_key_that_could_leave_the_storage_is_refused(storage, key):
    for call in (
        storage.read,
        storage.size,
        storage.sizes,
        storage.folders,
        storage.remove,
        storage.child,
        lambda key: storage.write(key, [b""]),
        lambda key: storage.read_ranges(key, [(0, 1)]),
    ):
        with pytest.raises(SpikeDeblurError, match="expected a relative path inside"):
            call(key)


def test_the_top_is_no_file(storage):
    for call in (storage.read, storage.size, lambda key: storage.write(key, [b""])):
        with pytest.raises(StoreError, match="name a file inside"):
            call("")


def test_a_pickled_storage_is_the_same_storage(storage):
    storage.write("c", [b"1"])
    storage.read_ranges("c", [(0, 1)])
    assert len(pickle.dumps(storage)) < 500
    other = pickle.loads(pickle.dumps(storage))
    assert other.location == storage.location
    assert other.read("c") == b"1"


def test_a_spawned_process_reads_the_storage(storage):
    storage.write("c", [CONTENT])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(storage.read, ("c",)).get(timeout=30) == CONTENT


def test_threads_share_a_storage(storage):
    storage.write("c", [CONTENT])
    got: dict[int, bytes] = {}

    def read(start: int) -> None:
        for offset in range(start, start + 20):
            got[offset] = bytes(storage.read_ranges("c", [(offset, 9)])[0])

    threads = [threading.Thread(target=read, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 80
    assert all(part == CONTENT[offset : offset + 9] for offset, part in got.items())
