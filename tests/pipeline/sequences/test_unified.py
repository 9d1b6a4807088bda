"""The unified layout gives what the store gives, from `.npy` and from `.dat`."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet, make_data_set, record

from spikedeblur.pipeline.sequences import WindowSequence
from spikedeblur.pipeline.sequences.light import LightSequence
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_windows
from spikedeblur.pipeline.spikes.intervals import light_of_counts, light_of_spikes
from spikedeblur.pipeline.storage.base import StoreError


@pytest.fixture
def tree(data: DataSet, tmp_path: Path) -> Path:
    data.voxelize(tmp_path / "tree", format="npy")
    return tmp_path / "tree"


def opened(root: Path, data: DataSet, split: str = "train", **options) -> list[WindowSequence]:
    bins = options.pop("bins", 8)
    return open_windows(root, split, bins=bins, files=UnifiedFiles(log_paths=[data.log], **options))


@pytest.mark.parametrize("split", ["train", "val"])
def test_store_npy_and_dat_give_the_same_tensors(
    data: DataSet, store: Path, tree: Path, split: str
) -> None:
    (zarr,) = opened(store, data, split)
    for precomputed in (True, False):
        (other,) = opened(tree, data, split, precomputed=precomputed)
        assert isinstance(other, WindowSequence)
        for name in (
            "seq",
            "bins",
            "gain",
            "length",
            "frame_shape",
            "voxel_shape",
            "has_sharp",
            "voxel_dtype",
        ):
            assert getattr(other, name) == getattr(zarr, name), name
        assert other.windows_are_raw
        assert other.voxel_dtype == other.voxels(0, 1).dtype
        for name in ("frame_index", "samples"):
            np.testing.assert_array_equal(getattr(other, name), getattr(zarr, name))
            assert getattr(other, name).dtype == getattr(zarr, name).dtype
        np.testing.assert_allclose(other.t0, zarr.t0, atol=5e-7)
        np.testing.assert_allclose(other.t1, zarr.t1, atol=5e-7)
        for crop in ((0, 5), (1, 4, (3, 17), (9, 30))):
            for name in ("voxels", "blur", "sharp"):
                got, expected = getattr(other, name)(*crop), getattr(zarr, name)(*crop)
                assert got.dtype == expected.dtype
                np.testing.assert_array_equal(got, expected)


def test_dropped_columns_are_left_out_of_the_cut(tmp_path: Path) -> None:
    data = make_data_set(tmp_path, seqs=("train/a",))
    from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest

    manifest = read_manifest(data.manifest)
    sequence = manifest.sequences[0].model_copy(update={"geometry": "20x36,bottom-up,drop=30:36"})
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": (sequence,)}))
    data.voxelize(tmp_path / "tree", format="npy")
    data.voxelize(tmp_path / "s.zarr")
    expected = data.voxels("train/a", 8)[..., :30]
    for precomputed in (True, False):
        got = opened(tmp_path / "tree", data, precomputed=precomputed)[0].voxels(0, 5)
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(opened(tmp_path / "s.zarr", data)[0].voxels(0, 5), expected)


def test_voxels_go_beside_their_source_where_the_store_is_the_source(
    data: DataSet, tree: Path, tmp_path: Path
) -> None:
    """A unified data set of one's own: only spike_vox is written into it."""
    import shutil

    from spikedeblur.pipeline.align.manifest import (
        AlignedSequence,
        Manifest,
        Window,
        read_manifest,
        write_manifest,
    )

    shutil.rmtree(tree / "val")
    (tree / "voxels.json").unlink()
    shutil.rmtree(tree / "train/a/one/spike_vox")
    before = {p: p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    source = read_manifest(data.manifest).sequences[0]
    here = "train/a/one"
    windows = tuple(
        Window(
            frame_index=w.frame_index,
            t0=w.t0,
            t1=w.t1,
            spike_count=w.spike_count,
            first=w.t0,
            spikes=f"{here}/spike/{w.frame_index:06d}.dat",
            blur=f"{here}/blur/{w.frame_index:06d}.png",
        )
        for w in source.windows
    )
    files = {path: record(tree / path) for w in windows for path in (w.spikes, w.blur)}
    sequence = AlignedSequence(
        seq=here, geometry=source.geometry, rate=source.rate, windows=windows, files=files
    )
    own = Manifest(layout="unified", root="tree", fps=1000.0, sequences=(sequence,))
    write_manifest(tmp_path / "own.json", own)
    data.manifest = tmp_path / "own.json"
    assert data.voxelize(tree, format="npy").sequences_written == 1
    assert data.voxelize(tree, format="npy").sequences_kept == 1
    after = {p: p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    assert before.items() <= after.items()
    assert {p.parent.name for p in after.keys() - before.keys()} == {"spike_vox"}
    got = opened(tree, data)[0].voxels(0, 5)
    np.testing.assert_array_equal(got, data.voxels(here, 8))


def test_float_npy_are_log_counts_and_said_to_be_so(data: DataSet, tree: Path) -> None:
    for path in (tree / "train").rglob("*.npy"):
        np.save(path, np.log1p(np.load(path).astype(np.float32)))
    (sequence,) = opened(tree, data)
    assert not sequence.windows_are_raw
    voxels = sequence.voxels(0, 5, (2, 9), (1, 8))
    assert voxels.dtype == np.float32
    expected = np.log1p(data.voxels(sequence.seq, 8)[:, :, 2:9, 1:8])
    np.testing.assert_allclose(voxels, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_npy_of_any_integer_type_are_counts(data: DataSet, tree: Path, dtype: type) -> None:
    for path in (tree / "train").rglob("*.npy"):
        np.save(path, np.load(path).astype(dtype))
    (sequence,) = opened(tree, data)
    assert sequence.windows_are_raw
    assert sequence.voxels(0, 1).dtype == np.uint16
    np.testing.assert_array_equal(sequence.voxels(0, 5), data.voxels(sequence.seq, 8))


@pytest.mark.parametrize(
    ("dtype", "add", "message"),
    [
        (np.float32, 0.5, "expected counts .* found float32"),
        (np.int64, -1000, "expected counts of 0 to 255"),
        (np.uint16, 256, "expected counts of 0 to 255"),
    ],
)
def test_npy_that_would_not_survive_the_first_ones_type_is_refused_by_name(
    data: DataSet, tree: Path, dtype: type, add: float, message: str
) -> None:
    path = tree / "train/a/one/spike_vox/000006.npy"
    np.save(path, (np.load(path) + np.array(add)).astype(dtype))
    (sequence,) = opened(tree, data)
    with pytest.raises(StoreError, match=rf"000006\.npy: {message}"):
        sequence.voxels(0, sequence.length)


@pytest.mark.parametrize("precomputed", [True, False])
def test_missing_partner_is_named(data: DataSet, tree: Path, precomputed: bool) -> None:
    kind, suffix = ("spike_vox", "npy") if precomputed else ("spike", "dat")
    (tree / f"train/a/one/{kind}/000006.{suffix}").unlink()
    with pytest.raises(StoreError, match=rf"{kind}: no file for frame 6"):
        opened(tree, data, precomputed=precomputed)


def test_missing_log_row_names_sequence_and_frame(data: DataSet, tree: Path) -> None:
    lines = data.log.read_text().splitlines(keepends=True)
    data.log.write_text("".join(line for line in lines if not line.startswith("8,")))
    with pytest.raises(StoreError, match=r"no row for frame 8 of 'train/a/one'"):
        opened(tree, data)


def test_dat_that_is_longer_than_its_exposure_is_refused(data: DataSet, tree: Path) -> None:
    path = tree / "train/a/one/spike/000006.dat"
    path.write_bytes(path.read_bytes() + bytes(90))
    with pytest.raises(StoreError, match=r"000006\.dat: expected the 33 samples .* found 34"):
        opened(tree, data, precomputed=False)


def test_other_number_of_bins_is_refused_where_it_cant_be_counted(
    data: DataSet, tree: Path, store: Path, kind: str
) -> None:
    with pytest.raises(StoreError, match=r"expected voxels \(16, h, w\), found \(8, 20, 36\)"):
        opened(tree, data, bins=16)
    if kind == "packed":
        assert opened(store, data, bins=16)[0].bins == 16
        return
    with pytest.raises(StoreError, match="has 8 bins, expected 16"):
        opened(store, data, bins=16)


def test_pickled_npy_is_never_loaded(data: DataSet, tree: Path) -> None:
    path = tree / "train/a/one/spike_vox/000002.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"000002\.npy: can't read"):
        opened(tree, data)


def test_missing_side_file_is_named(data: DataSet, tree: Path) -> None:
    (tree / "train/a/one/spike/spikes.json").unlink()
    with pytest.raises(StoreError, match=r"000002\.dat: expected a side file"):
        opened(tree, data, precomputed=False)


def test_sequences_survive_pickling(data: DataSet, tree: Path) -> None:
    for precomputed in (True, False):
        (sequence,) = opened(tree, data, "val", precomputed=precomputed)
        sequence.voxels(0, 1)
        again = pickle.loads(pickle.dumps(sequence))
        np.testing.assert_array_equal(again.voxels(0, 5), sequence.voxels(0, 5))


def test_light_is_by_sample_from_dat_and_by_bin_from_npy(data: DataSet, tree: Path) -> None:
    own = opened(tree, data, precomputed=False)[0]
    counted = opened(tree, data)[0]
    start, stop = data.window(data.centres[2])
    spikes = data.spikes[own.seq][start:stop]
    np.testing.assert_array_equal(own.spikes(2), spikes)
    for sequence, light in (
        (own, light_of_spikes(spikes, 8)),
        (counted, light_of_counts(counted.voxels(2, 3)[0], stop - start)),
    ):
        found = LightSequence(sequence).voxels(2, 3, (2, 9), (1, 8))[0]
        np.testing.assert_allclose(found, light[:, 2:9, 1:8], rtol=1e-3, atol=1e-3)
    assert own.has_spikes
    assert not counted.has_spikes
    with pytest.raises(StoreError, match="counts in bins"):
        counted.spikes(2)
