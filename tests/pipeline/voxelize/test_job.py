"""Writing stores: true counts, whole sequences only, unchanged ones left alone."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet, make_data_set, record
from files_of import files_of
from PIL import Image

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.host.files import UnsafePathError
from spikedeblur.pipeline.host.locks import HeldError
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.spikes import SpikeFile
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.store.records import exclusive, read_record
from spikedeblur.pipeline.store.schema import SHARD_BYTES, shard_windows
from spikedeblur.pipeline.voxelize import job as job_module
from spikedeblur.pipeline.voxelize import sources as sources_module
from spikedeblur.pipeline.voxelize.plan import ShardTask
from spikedeblur.pipeline.voxelize.task import ShardResult, write_shard


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows a shard, so that a sequence takes several tasks."""
    for name in (
        "spikedeblur.pipeline.voxelize.plan.shard_windows",
        "spikedeblur.pipeline.store.schema.shard_windows",
    ):
        monkeypatch.setattr(name, lambda n, _: min(2, n))
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SHARD_BYTES", 4000)


def test_counts_frames_and_times_equal_their_plain_definition(data: DataSet, store: Path) -> None:
    sequences = open_store(store)
    assert [sequence.seq for sequence in sequences] == list(data.seqs)
    for sequence in sequences:
        voxels = sequence.voxels(0, 5)
        assert voxels.dtype == np.uint8
        np.testing.assert_array_equal(voxels, data.voxels(sequence.seq, 8))
        for kind in ("blur", "sharp"):
            expected = np.stack([data.frames[sequence.seq, kind, c] for c in data.centres])
            np.testing.assert_array_equal(getattr(sequence, kind)(0, 5), expected)
        np.testing.assert_array_equal(sequence.frame_index, data.centres)
        np.testing.assert_array_equal(sequence.samples, [33] * 5)
        np.testing.assert_allclose(sequence.t0, (np.array(data.centres) - 2) / 1000)
        np.testing.assert_allclose(sequence.t1, (np.array(data.centres) + 2) / 1000)
        assert sequence.gain == 0.5


def test_bins_that_can_exceed_255_are_uint16_and_do_not_wrap(tmp_path: Path) -> None:
    data = make_data_set(tmp_path, centres=(40,), exposure=81, seqs=("train/a",))
    data.voxelize(tmp_path / "s.zarr", bins=2)
    voxels = open_store(tmp_path / "s.zarr")[0].voxels(0, 1)
    assert voxels.dtype == np.uint16
    np.testing.assert_array_equal(voxels, data.voxels("train/a", 2))


def test_fewer_samples_than_bins_names_sequence_and_both_numbers(
    data: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"train/a/one.* 33 spike samples for 34 bins"):
        data.voxelize(tmp_path / "s.zarr", bins=34)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("what", ["packed", "counts", "npy"])
def test_run_killed_in_the_middle_continues_to_identical_arrays(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    options = {"format": "npy"} if what == "npy" else {"kind": what}
    data.voxelize(tmp_path / "whole", **options)

    def die_in_the_second(task):
        if task.record.seq == "val/b/two" and task.start > 0:
            raise KeyboardInterrupt
        return write_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "write_shard", die_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            data.voxelize(tmp_path / "killed", **options)
    if what != "npy":
        with pytest.raises(StoreError, match="val/b/two not complete"):
            open_store(tmp_path / "killed")
        assert open_store(tmp_path / "killed", "train")[0].length == 5
    summary = data.voxelize(tmp_path / "killed", **options)
    assert (summary.sequences_kept, summary.sequences_written) == (1, 1)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.usefixtures("small_shards")
def test_two_processes_write_the_same_bytes_as_this_one(data: DataSet, tmp_path: Path) -> None:
    one = data.voxelize(tmp_path / "one.zarr", workers=1)
    two = data.voxelize(tmp_path / "two.zarr", workers=2)
    assert files_of(tmp_path / "one.zarr") == files_of(tmp_path / "two.zarr")
    assert (one.windows, one.bytes_out) == (two.windows, two.bytes_out) == (10, one.bytes_out)


def test_error_in_a_worker_keeps_its_message(data: DataSet, tmp_path: Path) -> None:
    path = data.root / "raw/val/b/two/blur/0004.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    manifest = read_manifest(data.manifest)
    files = manifest.sequences[1].files | {"raw/val/b/two/blur/0004.png": record(path)}
    second = manifest.sequences[1].model_copy(update={"files": files})
    write_manifest(
        data.manifest,
        manifest.model_copy(update={"sequences": (manifest.sequences[0], second)}),
    )
    with pytest.raises(StoreError, match=r"val/b/two.*0004\.png.*40x72.*8x8"):
        data.voxelize(tmp_path / "s.zarr", workers=2)
    assert issubclass(StoreError, SpikeDeblurError)
    assert str(pickle.loads(pickle.dumps(StoreError("as it was")))) == "as it was"


def test_unchanged_sequences_are_kept_without_reading_a_source(
    data: DataSet, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(store)

    def refuse(*_args, **_kwargs):
        raise AssertionError("read a source")

    monkeypatch.setattr(SpikeFile, "open", refuse)
    monkeypatch.setattr(sources_module, "read_frame", refuse)
    monkeypatch.setattr(sources_module, "image_shape", refuse)
    summary = data.voxelize(store)
    assert (summary.sequences_kept, summary.windows) == (2, 0)
    assert files_of(store) == before


def test_touched_source_of_same_content_is_kept(data: DataSet, store: Path) -> None:
    os.utime(data.root / "raw/train/a/one/spike.dat", ns=(1, 1))
    assert data.voxelize(store).sequences_kept == 2


def test_other_bins_of_counts_are_refused_by_name_unless_overwritten(
    data: DataSet, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    data.voxelize(store, kind="counts")
    with pytest.raises(StoreError, match=r"train/a/one .*8 bins, not 4.*--overwrite"):
        data.voxelize(store, bins=4)
    assert open_store(store)[0].bins == 8
    assert data.voxelize(store, bins=4, overwrite=True).sequences_written == 2
    np.testing.assert_array_equal(open_store(store)[0].voxels(0, 5), data.voxels("train/a/one", 4))


def test_other_bins_of_packed_spikes_change_only_what_the_record_says(
    data: DataSet, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    data.voxelize(store, kind="packed")
    before = files_of(store)
    summary = data.voxelize(store, bins=4)
    assert (summary.sequences_kept, summary.sequences_written) == (2, 0)
    changed = {name for name, content in files_of(store).items() if before[name] != content}
    assert changed == {"train/a/one/zarr.json", "val/b/two/zarr.json"}
    np.testing.assert_array_equal(open_store(store)[0].voxels(0, 5), data.voxels("train/a/one", 4))
    data.voxelize(store, bins=8)
    assert files_of(store) == before


def test_packed_spikes_give_any_bins_and_the_spikes_themselves(
    data: DataSet, tmp_path: Path
) -> None:
    data.voxelize(tmp_path / "s.zarr", kind="packed")
    for bins in (1, 5, 33):
        sequence = open_store(tmp_path / "s.zarr", "val", bins)[0]
        assert sequence.bins == bins
        np.testing.assert_array_equal(sequence.voxels(0, 5), data.voxels("val/b/two", bins))
        start, stop = data.window(data.centres[3])
        np.testing.assert_array_equal(sequence.spikes(3), data.spikes["val/b/two"][start:stop])
    with pytest.raises(StoreError, match=r"window of 33 spike samples, too few for 34 bins"):
        open_store(tmp_path / "s.zarr", "val", 34)


def test_samples_that_windows_share_are_stored_once(data: DataSet, tmp_path: Path) -> None:
    data.voxelize(tmp_path / "s.zarr", kind="packed")
    record = read_record(open_storage(tmp_path / "s.zarr/train/a/one"))
    assert record is not None
    assert record.stored_samples == len(data.spikes["train/a/one"])
    assert sum(open_store(tmp_path / "s.zarr")[0].samples) > record.stored_samples


@pytest.mark.parametrize("keep_size", [True, False])
def test_source_changed_since_alignment_is_refused_by_name(
    data: DataSet, tmp_path: Path, keep_size: bool
) -> None:
    path = data.root / "raw/val/b/two/spike.dat"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content if keep_size else content[:-90])
    os.utime(path, ns=(1, 1))
    with pytest.raises(StoreError, match=r"val/b/two: .*spike\.dat changed .*align"):
        data.voxelize(tmp_path / "s.zarr")


def test_source_that_links_out_of_the_data_set_is_refused(data: DataSet, tmp_path: Path) -> None:
    path = data.root / "raw/train/a/one/spike.dat"
    path.rename(tmp_path / "elsewhere.dat")
    path.symlink_to(tmp_path / "elsewhere.dat")
    with pytest.raises(SpikeDeblurError, match=r"spike\.dat' is a link that leaves"):
        data.voxelize(tmp_path / "s.zarr")


def test_source_whose_hash_is_not_the_manifests_is_refused(data: DataSet, tmp_path: Path) -> None:
    manifest = read_manifest(data.manifest)
    name = "raw/train/a/one/blur/0006.png"
    first = manifest.sequences[0]
    wrong = first.files[name].model_copy(update={"sha256": "0" * 64})
    first = first.model_copy(update={"files": first.files | {name: wrong}})
    write_manifest(
        data.manifest, manifest.model_copy(update={"sequences": (first, manifest.sequences[1])})
    )
    with pytest.raises(StoreError, match=r"train/a/one: .*0006\.png changed"):
        data.voxelize(tmp_path / "s.zarr")


def test_deleted_shard_is_made_again_on_overwrite_only(data: DataSet, store: Path) -> None:
    (store / "train/a/one/blur/c/0/0/0/0").unlink()
    with pytest.raises(StoreError, match=r"blur/c/0/0/0/0 is missing"):
        data.voxelize(store)
    assert data.voxelize(store, overwrite=True).sequences_written == 1
    open_store(store)


def test_folder_that_is_no_store_is_refused(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.png").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"photos: expected a new folder or a store"):
            data.voxelize(tmp_path / "photos", overwrite=overwrite)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["holiday.png"]


def test_store_of_the_other_format_is_refused(data: DataSet, store: Path) -> None:
    with pytest.raises(
        StoreError,
        match=r"expected a store of kind npy, found (packed|counts)",
    ):
        data.voxelize(store, format="npy")


def test_second_writer_is_refused_while_the_first_works(data: DataSet, store: Path) -> None:
    with exclusive(open_storage(store)), pytest.raises(HeldError, match="another `voxelize`"):
        data.voxelize(store)
    assert data.voxelize(store).sequences_kept == 2


def test_dry_run_writes_nothing(data: DataSet, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    summary = data.voxelize(tmp_path / "s.zarr", dry_run=True)
    assert (summary.sequences_written, summary.windows, summary.dry_run) == (2, 10, True)
    assert set(tmp_path.iterdir()) == before


def test_progress_counts_windows(data: DataSet, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    data.voxelize(tmp_path / "s.zarr", on_progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 10, "")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert calls[-1][:2] == (10, 10)
    assert re.fullmatch(r"[\d.]+ MB, [\d.]+ MB/s of spikes, val/b/two", calls[-1][2])


def test_shards_are_bounded_in_bytes_and_even() -> None:
    window = 32 * 360 * 640 + 2 * 3 * 720 * 1280
    assert shard_windows(100, window) * window <= SHARD_BYTES
    assert shard_windows(7, SHARD_BYTES // 4) == 4
    assert shard_windows(1, 2 * SHARD_BYTES) == 1
    assert shard_windows(9, 256) == 9


def test_record_tells_where_the_data_came_from(data: DataSet, store: Path) -> None:
    import hashlib

    found = read_record(open_storage(store / "train/a/one"))
    assert found is not None
    assert found.complete is not None
    assert found.geometry == "20x36,bottom-up"
    assert (found.rate, found.gain, found.first, found.bins) == (8000.0, 0.5, 0.0, 8)
    path = "raw/train/a/one/spike.dat"
    digest = hashlib.sha256((data.root / path).read_bytes()).hexdigest()
    assert found.complete.sources[path].sha256 == digest
    assert len(found.complete.sources) == 11


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_counts_are_the_same_in_any_codec_and_a_store_may_hold_several(
    data: DataSet, tmp_path: Path, codec: str
) -> None:
    import zarr

    store = tmp_path / "s.zarr"
    data.voxelize(tmp_path / "lz4.zarr", kind="counts")
    data.voxelize(store, kind="counts", codec=codec)
    assert data.voxelize(store).sequences_kept == len(open_store(store))
    for one, other in zip(open_store(store), open_store(tmp_path / "lz4.zarr"), strict=True):
        np.testing.assert_array_equal(one.voxels(0, 5), other.voxels(0, 5))
        plain = zarr.open_array(store / one.seq / "voxels", mode="r")
        np.testing.assert_array_equal(plain[:], one.voxels(0, 5))


def test_a_codec_is_refused_where_there_are_no_counts_or_it_is_not_known(
    data: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"codec is for counts, this is kind packed"):
        data.voxelize(tmp_path / "s.zarr", codec="none")
    with pytest.raises(StoreError, match=r"codec 'gzip' is not known; give lz4, zstd, none"):
        data.voxelize(tmp_path / "s.zarr", kind="counts", codec="gzip")
    assert not (tmp_path / "s.zarr").exists()


def test_plain_zarr_reads_what_we_read(store: Path, kind: str, spikes_array: str) -> None:
    import zarr

    group = zarr.open_group(store, mode="r")
    for sequence in open_store(store):
        arrays = group[sequence.seq]
        for name in ("blur", "sharp"):
            np.testing.assert_array_equal(arrays[name][:], getattr(sequence, name)(0, 5))
        for name in ("samples", "t0", "t1", "frame_index"):
            np.testing.assert_array_equal(arrays[name][:], getattr(sequence, name))
        spikes = arrays[spikes_array][:]
        if kind == "counts":
            np.testing.assert_array_equal(spikes, sequence.voxels(0, 5))
            continue
        first, n = arrays["first_sample"][3], arrays["samples"][3]
        bits = np.unpackbits(spikes[first : first + n], axis=-1, bitorder="little")
        np.testing.assert_array_equal(bits[..., : sequence.voxel_shape[1]], sequence.spikes(3))
    names = {
        "counts": ("window", "bin", "voxel_y", "voxel_x"),
        "packed": ("sample", "voxel_y", "voxel_x_bytes"),
    }
    assert group["train/a/one"][spikes_array].metadata.dimension_names == names[kind]


def test_what_a_killed_worker_left_is_gone_when_its_sequence_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data_set(tmp_path)
    data.voxelize(tmp_path / "undisturbed.zarr")

    def after_one_that_was_killed(task: ShardTask) -> ShardResult:
        result = write_shard(task)
        for name in result.files:
            path = Path(task.target.store, task.record.seq, name)
            path.with_name(f".{path.name}.0123456789ab.partial").write_bytes(b"half")
        return result

    monkeypatch.setattr(job_module, "write_shard", after_one_that_was_killed)
    data.voxelize(tmp_path / "disturbed.zarr")
    assert files_of(tmp_path / "disturbed.zarr") == files_of(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_nothing_is_written_or_removed_through_a_link_out_of_the_store(
    tmp_path: Path, kind: str
) -> None:
    data = make_data_set(tmp_path)
    store, elsewhere = tmp_path / "s.zarr", tmp_path / "elsewhere"
    data.voxelize(store, kind=kind)
    (store / "train").rename(elsewhere)
    (store / "train").symlink_to(elsewhere)
    left = elsewhere / ".a.0123456789ab.partial"
    left.touch()
    os.utime(left, (0, 0))
    before = files_of(elsewhere)
    with pytest.raises(UnsafePathError, match=r"train.* is a link that leaves"):
        data.voxelize(store, kind=kind, bins=4, overwrite=True)
    assert files_of(elsewhere) == before
    assert left.exists()
    shutil.rmtree(elsewhere)
    elsewhere.mkdir()
    with pytest.raises(UnsafePathError, match=r"train.* is a link that leaves"):
        data.voxelize(store, kind=kind)
    assert not list(elsewhere.iterdir())


def test_a_store_that_is_a_link_itself_is_written(tmp_path: Path) -> None:
    data = make_data_set(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "s.zarr").symlink_to(tmp_path / "disk")
    data.voxelize(tmp_path / "s.zarr")
    assert data.voxelize(tmp_path / "s.zarr").sequences_kept == len(data.seqs)
