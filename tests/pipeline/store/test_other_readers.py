"""A store is plain Zarr v3: readers that have never heard of us read what we read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet

from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.sequences.stored import open_store

SEQ = "val/b/two"


def counts_by_numpy(group, window: int, bins: int) -> np.ndarray:
    """As docs/how-to/other-readers.md counts a packed store: (K, h, w)."""
    first, n = int(group["first_sample"][window]), int(group["samples"][window])
    packed = group["spikes"][first : first + n]  # (N, h, ceil(w / 8))
    width = group.attrs["voxel_shape"][1]
    spikes = np.unpackbits(packed, axis=-1, bitorder="little", count=width)  # (N, h, w)
    edges = -(-np.arange(bins) * n // bins)  # sample j is in bin floor(j K / N)
    return np.add.reduceat(spikes, edges, axis=0, dtype=np.int64)


@pytest.mark.parametrize("bins", [1, 5, 8])
def test_counts_come_out_of_packed_spikes_with_zarr_and_numpy(
    data: DataSet, tmp_path: Path, bins: int
) -> None:
    import zarr

    data.voxelize(tmp_path / "s.zarr", kind="packed")
    group = zarr.open_group(tmp_path / "s.zarr", path=SEQ, mode="r")
    found = np.stack([counts_by_numpy(group, i, bins) for i in range(len(data.centres))])
    np.testing.assert_array_equal(found, data.voxels(SEQ, bins))


def test_xarray_has_our_dimensions_values_and_attributes(
    data: DataSet, store: Path, kind: str
) -> None:
    xarray = pytest.importorskip("xarray")
    set_ = xarray.open_zarr(store, group=SEQ, consolidated=False)
    counts = {"window": 5, "bin": 8, "voxel_y": 20, "voxel_x": 36}
    packed = {"sample": 97, "voxel_y": 20, "voxel_x_bytes": 5}
    name, sizes = {"counts": ("voxels", counts), "packed": ("spikes", packed)}[kind]
    assert dict(set_[name].sizes) == sizes
    assert dict(set_["blur"].sizes) == {"window": 5, "y": 40, "x": 72, "channel": 3}
    assert set_["t0"].dims == ("window",)
    assert (set_.attrs["seq"], set_.attrs["kind"], set_.attrs["gain"]) == (SEQ, kind, 0.5)
    # Zeros are zeros, not missing values.
    types = {name: str(variable.dtype) for name, variable in set_.items()}
    assert (types["blur"], types[name], types["t0"]) == ("uint8", "uint8", "float64")
    for i, centre in enumerate(data.centres):
        expected = data.frames[SEQ, "sharp", centre]
        np.testing.assert_array_equal(set_["sharp"].isel(window=i).values, expected)
    np.testing.assert_array_equal(set_["frame_index"].values, data.centres)
    if kind == "counts":
        np.testing.assert_array_equal(set_["voxels"].values, data.voxels(SEQ, 8))


def test_xarray_finds_all_sequences_as_a_tree(data: DataSet, store: Path) -> None:
    xarray = pytest.importorskip("xarray")
    tree = xarray.open_datatree(store, engine="zarr", consolidated=False)
    assert {f"/{seq}" for seq in data.seqs} == {node.path for node in tree.leaves}


def test_consolidated_metadata_are_not_left_behind_when_a_store_grows(
    data: DataSet, tmp_path: Path
) -> None:
    """zarr-python believes them: the new sequence would not be seen, nor changed attributes."""
    import zarr

    store, whole = tmp_path / "s.zarr", read_manifest(data.manifest)
    write_manifest(data.manifest, whole.model_copy(update={"sequences": whole.sequences[:1]}))
    data.voxelize(store)
    root = (store / "zarr.json").read_bytes()

    zarr.consolidate_metadata(store)
    kept = (store / "zarr.json").read_bytes()
    data.voxelize(store)
    assert (store / "zarr.json").read_bytes() == kept  # nothing grew

    write_manifest(data.manifest, whole)
    data.voxelize(store)
    assert (store / "zarr.json").read_bytes() == root
    assert SEQ in zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(
        zarr.open_group(store, mode="r")[SEQ]["frame_index"], data.centres
    )

    zarr.consolidate_metadata(store)
    data.voxelize(store, bins=4)
    assert zarr.open_group(store, mode="r")[SEQ].attrs["bins"] == 4


def test_tensorstore_reads_whole_arrays_and_crops(store: Path, kind: str) -> None:
    tensorstore = pytest.importorskip("tensorstore")

    def opened(name: str):
        where = {"driver": "file", "path": f"{store}/{SEQ}/{name}/"}
        return tensorstore.open({"driver": "zarr3", "kvstore": where}).result()

    (sequence,) = (s for s in open_store(store) if s.seq == SEQ)
    sharp = opened("sharp")
    assert sharp.domain.labels == ("window", "y", "x", "channel")
    expected = sequence.sharp(0, 5)
    np.testing.assert_array_equal(sharp.read().result(), expected)
    np.testing.assert_array_equal(sharp[2, 7:31, 11:50].read().result(), expected[2, 7:31, 11:50])
    if kind == "counts":
        np.testing.assert_array_equal(opened("voxels").read().result(), sequence.voxels(0, 5))
        return
    first, n = (opened(name)[3].read().result() for name in ("first_sample", "samples"))
    packed = opened("spikes")[int(first) : int(first + n)].read().result()
    bits = np.unpackbits(packed, axis=-1, bitorder="little", count=sequence.voxel_shape[1])
    np.testing.assert_array_equal(bits, sequence.spikes(3))
