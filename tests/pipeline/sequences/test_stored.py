"""Reading stores: crops, damaged or hostile stores, other processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from data_sets import DataSet, make_data_set

from spikedeblur.pipeline.sequences.stored import StoreSequence, open_store
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.folder import Folder


def edit_json(path: Path, *keys: str, value: object) -> None:
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content))


def test_crop_equals_the_whole_cut(data: DataSet, store: Path) -> None:
    sequence = open_store(store, "val")[0]
    voxels = data.voxels("val/b/two", 8)
    crop = sequence.voxels(1, 4, (3, 17), (10, 31))
    np.testing.assert_array_equal(crop, voxels[1:4, :, 3:17, 10:31])
    blur = np.stack([data.frames["val/b/two", "blur", c] for c in data.centres])
    np.testing.assert_array_equal(sequence.blur(1, 4, (6, 34), (20, 62)), blur[1:4, 6:34, 20:62])


def test_crop_reads_across_chunk_and_shard_borders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.CHUNK_SIDE", 8)
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SPIKE_CHUNK", (8, 16))
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.CHUNK_SAMPLES", 9)
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SHARD_BYTES", 4000)
    data = make_data_set(tmp_path, seqs=("test/x",))
    data.voxelize(tmp_path / "s.zarr", kind=kind)
    sequence = open_store(tmp_path / "s.zarr")[0]
    voxels = data.voxels("test/x", 8)
    rng = np.random.default_rng(1)
    for i in range(20):
        # A forked child cuts chunks by itself, as it does in a bucket.
        monkeypatch.setattr("spikedeblur.pipeline.store.shard._is_forked", lambda i=i: i % 2)
        t0, t1 = sorted(rng.choice(6, 2, replace=False))
        y0, y1 = sorted(rng.choice(21, 2, replace=False))
        x0, x1 = sorted(rng.choice(37, 2, replace=False))
        np.testing.assert_array_equal(
            sequence.voxels(t0, t1, (y0, y1), (x0, x1)), voxels[t0:t1, :, y0:y1, x0:x1]
        )


def test_clip_is_what_its_three_parts_are(store: Path) -> None:
    sequence = open_store(store, "val")[0]
    box, small = ((6, 34), (20, 62)), ((3, 17), (10, 31))
    blur, sharp, voxels = sequence.clip(1, 4, box, small)
    np.testing.assert_array_equal(blur, sequence.blur(1, 4, *box))
    np.testing.assert_array_equal(sharp, sequence.sharp(1, 4, *box))
    np.testing.assert_array_equal(voxels, sequence.voxels(1, 4, *small))
    np.testing.assert_array_equal(sequence.clip(2, 3)[0], sequence.blur(2, 3))


def test_ranges_outside_are_errors_not_shorter_arrays(store: Path) -> None:
    sequence = open_store(store)[0]
    with pytest.raises(IndexError, match="windows 3:6"):
        sequence.voxels(3, 6)
    with pytest.raises(IndexError, match="pixels 10:21"):
        sequence.voxels(0, 1, (10, 21), None)


def test_missing_or_cut_shard_is_noticed_on_opening(store: Path, spikes_shard: str) -> None:
    shard = store / "val/b/two" / spikes_shard
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=rf"val/b/two.*{spikes_shard} is \d+ bytes"):
        open_store(store)
    shard.unlink()
    with pytest.raises(StoreError, match=rf"{spikes_shard} is missing"):
        open_store(store)


def test_bit_rot_in_the_shard_index_is_an_error(
    store: Path, spikes_array: str, spikes_shard: str
) -> None:
    shard = store / "val/b/two" / spikes_shard
    content = bytearray(shard.read_bytes())
    content[-6] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=rf"val/b/two: can't read {spikes_array}"):
        open_store(store, "val")[0].voxels(0, 5)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_shard_that_vanishes_after_opening_is_an_error_and_not_zeros(
    store: Path, spikes_array: str, spikes_shard: str, has_begun: bool
) -> None:
    sequence = open_store(store, "val")[0]
    if has_begun:
        sequence.voxels(0, 1)
    (store / "val/b/two" / spikes_shard).unlink()
    with pytest.raises(StoreError, match=rf"val/b/two.*{spikes_array}"):
        sequence.voxels(0, 5)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ((2**64 - 1, 2**64 - 1), "a chunk is missing"),
        ((2**40, 8), "outside"),
        ((8, 2**64 - 8), "outside"),
        ((1, 16), "overlap"),
        (None, "overlap"),
    ],
)
def test_an_index_with_a_valid_checksum_must_still_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: tuple[int, int] | None, what: str
) -> None:
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SPIKE_CHUNK", (8, 16))
    data = make_data_set(tmp_path, seqs=("test/x",))
    data.voxelize(tmp_path / "s.zarr", kind="packed")
    shard = tmp_path / "s.zarr/test/x/spikes/c/0/0/0"
    content = bytearray(shard.read_bytes())
    array = zarr.open_array(shard.parents[3])
    n = 16 * np.prod([s // c for s, c in zip(array.shards, array.chunks, strict=True)])
    index = np.frombuffer(content[-n - 4 : -4], "<u8").reshape(-1, 2).copy()
    index[1] = index[0] if entry is None else entry
    content[-n - 4 :] = index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=rf"test/x: can't read spikes: spikes/c/0/0/0:.*{what}"):
        open_store(tmp_path / "s.zarr")[0].voxels(0, 1)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["spikes/c/0/0/0", "blur/c/0/0/0/0", "t0/c/0"])
def test_a_flipped_bit_is_refused_where_files_are_compared(
    data: DataSet, tmp_path: Path, file: str
) -> None:
    data.voxelize(tmp_path / "p.zarr", kind="packed")
    flip(tmp_path / "p.zarr/val/b/two" / file, 11)
    sequence = open_store(tmp_path / "p.zarr", "val", verify=True)[0]
    for _ in range(2):  # it is not taken for whole the second time
        with pytest.raises(StoreError, match=rf"val/b/two: {file}: expected CRC-32 .* --check"):
            sequence.clip(0, 1), sequence.t0
    unseen = open_store(tmp_path / "p.zarr", "val")[0]
    unseen.clip(0, 1)


def test_a_changed_record_is_refused_where_files_are_compared(store: Path) -> None:
    edit_json(store / "val/b/two/zarr.json", "attributes", "gain", value=0.75)
    assert open_store(store, "val")[0].gain == 0.75
    with pytest.raises(StoreError, match=r"val/b/two: zarr\.json is not what was written"):
        open_store(store, "val", verify=True)


def test_a_file_is_compared_once_in_all_processes_of_a_run(
    store: Path, spikes_shard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    stream = Folder.stream
    monkeypatch.setattr(Folder, "stream", lambda self, key: read.append(key) or stream(self, key))
    sequence = open_store(store, "val", verify=True)[0]
    spawn = multiprocessing.get_context("spawn")
    other = spawn.Process(target=_read_sum, args=(sequence,))
    other.start()
    other.join(60)
    assert other.exitcode == 0
    sequence.voxels(0, 5)
    assert spikes_shard not in read  # the other process compared it
    sequence.blur(0, 5)
    sequence.blur(0, 5)
    assert read.count("blur/c/0/0/0/0") == 1


def test_reading_keeps_no_file_open(store: Path) -> None:
    for sequence in open_store(store):
        sequence.clip(0, 5)
    held = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert not [path for path in held if str(store) in path]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("attributes", "windows"), 10**12, "windows"),
        (("attributes", "bins"), 10**9, "bins"),
        (("attributes", "voxel_shape"), [10**6, 10**6], "sides of 1 to"),
        (("attributes", "frame_shape"), [65536, 65536], "shards of at most"),
        (("attributes", "schema_version"), 1, "schema 3, found 1"),
        (("attributes", "surprise"), 1, "surprise"),
        (("attributes", "complete", "files"), {"../../etc/passwd": 1}, "stays inside"),
        (("attributes", "geometry"), "20x36", "row order"),
        (("attributes", "windows"), 6, "samples/c/0|missing|record"),
    ],
)
def test_absurd_records_are_refused_before_anything_is_read(
    store: Path, keys: tuple[str, ...], value: object, message: str
) -> None:
    edit_json(store / "val/b/two/zarr.json", *keys, value=value)
    with pytest.raises(StoreError, match=message):
        open_store(store)[1].samples  # noqa: B018


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("shape",), [10**9]),
        (("shape",), [10**9, 20, 5]),
        (("data_type",), "float64"),
        (("chunk_grid", "configuration", "chunk_shape"), [10**6, 20, 5]),
        (("chunk_grid", "configuration", "chunk_shape"), [10**9, 2**20, 2**20]),
        (("chunk_grid", "configuration", "chunk_shape"), [-1, 20, 5]),
        (("codecs",), []),
    ],
)
def test_array_metadata_that_contradicts_the_record_is_refused(
    store: Path, spikes_array: str, keys: tuple[str, ...], value: object
) -> None:
    edit_json(store / "val/b/two" / spikes_array / "zarr.json", *keys, value=value)
    with pytest.raises(StoreError, match=r"val/b/two"):
        open_store(store)[1].voxels(0, 1)


@pytest.fixture
def in_three_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose one sequence of five windows has three files of frames: 2, 2 and 1."""
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SHARD_BYTES", 40_000)
    make_data_set(tmp_path, seqs=("test/x",)).voxelize(tmp_path / "s.zarr", kind="packed")
    assert len(list((tmp_path / "s.zarr/test/x/blur/c").iterdir())) == 3
    return tmp_path / "s.zarr"


def test_a_store_of_the_schema_before_is_read(in_three_parts: Path) -> None:
    new = open_store(in_three_parts)[0].clip(0, 5)
    sequence = in_three_parts / "test/x"
    record = json.loads((sequence / "zarr.json").read_text())
    attributes = record["attributes"]
    for key in ("arrays", "readout"):
        del attributes[key]
    attributes["schema_version"] = 2
    for name in ("t0", "t1", "samples", "frame_index", "first_sample"):  # as long as the windows
        file = sequence / name / "c/0"
        assert len(file.read_bytes()) == 6 * 8
        file.write_bytes(file.read_bytes()[: 5 * 8])
        attributes["complete"]["files"][f"{name}/c/0"] = 5 * 8
    (sequence / "zarr.json").write_text(json.dumps(record))
    (old,) = open_store(in_three_parts)
    for found, expected in zip(old.clip(0, 5), new, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert old.samples.shape == old.t0.shape == (5,)


def test_a_part_appended_at_the_end_of_all_files_changes_none_that_is_complete(
    in_three_parts: Path,
) -> None:
    group = zarr.open_group(in_three_parts / "test/x", mode="r+")
    files = {p: p.read_bytes() for p in in_three_parts.rglob("c/**/*") if p.is_file()}
    start = 6  # frames: 2 a file; one value a window: 6 a file
    for name in ("blur", "sharp", "t0", "samples"):
        array = group[name]
        part = np.ones_like(array[:3])
        array.resize((start + 3, *array.shape[1:]))
        array[start:] = part
        np.testing.assert_array_equal(array[start:], part)
    assert {p: p.read_bytes() for p in files} == files


def test_arrays_that_only_some_stores_hold_are_left_alone(store: Path) -> None:
    before = open_store(store, "val")[0].clip(0, 5)
    path = store / "val/b/two/zarr.json"
    extra = {"name": "sensor", "dtype": "float32", "shape": [20, 36], "chunks": [20, 36]}
    arrays = json.loads(path.read_text())["attributes"]["arrays"]
    extra |= {"dimensions": ["voxel_y", "voxel_x"], "shards": None, "codec": "none"}
    edit_json(path, "attributes", "arrays", value=[*arrays, extra])
    sequence = open_store(store, "val")[0]
    assert sequence.record.specs["sensor"].shape == (20, 36)
    for found, expected in zip(sequence.clip(0, 5), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_frames_of_another_type_are_refused_by_name(store: Path) -> None:
    path = store / "val/b/two/zarr.json"
    arrays = json.loads(path.read_text())["attributes"]["arrays"]
    for array in arrays:
        if array["name"] == "blur":
            array["dtype"] = "uint16"
    edit_json(path, "attributes", "arrays", value=arrays)
    with pytest.raises(StoreError, match=r"val/b/two: .*sharp: expected uint16 .*found uint8"):
        open_store(store, "val")


def test_metadata_that_is_no_json_is_refused(store: Path) -> None:
    (store / "val/b/two/zarr.json").write_bytes(b"\xff{")
    with pytest.raises(StoreError, match=r"zarr\.json: expected JSON"):
        open_store(store)


def test_no_store_and_no_such_split_say_what_is_there(tmp_path: Path, store: Path) -> None:
    with pytest.raises(StoreError, match="nothing there"):
        open_store(tmp_path / "absent")
    with pytest.raises(StoreError, match=r"no split 'test'.*it has train, val"):
        open_store(store, "test")


def _read_sum(sequence: StoreSequence) -> int:
    return int(sequence.voxels(0, sequence.length).sum()) + int(sequence.samples.sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_other_processes_read_a_sequence_that_this_one_has_open(store: Path, method: str) -> None:
    sequence = open_store(store)[0]
    assert isinstance(sequence, StoreSequence)
    expected = _read_sum(sequence)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(_read_sum, [sequence] * 4).get(timeout=60) == [expected] * 4


def test_sequence_is_small_when_pickled_even_after_reading(store: Path) -> None:
    sequence = open_store(store)[0]
    sequence.voxels(0, 5)
    again = pickle.loads(pickle.dumps(sequence))
    np.testing.assert_array_equal(again.voxels(0, 5), sequence.voxels(0, 5))
    assert len(pickle.dumps(sequence)) < 20_000
