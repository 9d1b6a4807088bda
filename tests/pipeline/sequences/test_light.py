"""Sequences whose voxels are light: the spikes' instants, and what is known beside an exposure."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet, make_data_set

from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.sequences.light import LightSequence
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_windows
from spikedeblur.pipeline.spikes.intervals import light_of_counts, light_of_spikes
from spikedeblur.pipeline.storage.base import StoreError

SEQ = "val/b/two"
BESIDE = 8  # a quarter of 33 samples


def expected(data: DataSet, window: int, before: int, after: int) -> np.ndarray:
    start, stop = data.window(data.centres[window])
    spikes = data.spikes[SEQ][start - before : stop + after]
    return light_of_spikes(spikes, 8, before, stop - start)


def near(found: np.ndarray, light: np.ndarray) -> None:
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, light, rtol=1e-3, atol=1e-3)


def test_a_packed_store_knows_the_spikes_beside_an_exposure_from_its_neighbours(
    data: DataSet, tmp_path: Path
) -> None:
    data.voxelize(tmp_path / "s.zarr", kind="packed")
    sequence = LightSequence(open_store(tmp_path / "s.zarr", "val")[0])
    light = sequence.voxels(0, 5)
    assert isinstance(sequence, WindowSequence)
    assert sequence.voxel_dtype == "float16"
    near(light[0], expected(data, 0, 0, BESIDE))
    for window in (1, 2, 3):
        near(light[window], expected(data, window, BESIDE, BESIDE))
    near(light[4], expected(data, 4, BESIDE, 0))


def test_spikes_across_a_gap_are_not_taken_for_neighbours(tmp_path: Path) -> None:
    data = make_data_set(tmp_path, centres=(2, 10, 12), seqs=(SEQ,))
    data.voxelize(tmp_path / "s.zarr", kind="packed")
    light = LightSequence(open_store(tmp_path / "s.zarr")[0]).voxels(0, 3)
    near(light[0], expected(data, 0, 0, 0))
    near(light[1], expected(data, 1, 0, BESIDE))
    near(light[2], expected(data, 2, BESIDE, 0))


def test_a_store_of_counts_spreads_counts(data: DataSet, tmp_path: Path) -> None:
    data.voxelize(tmp_path / "s.zarr", kind="counts")
    sequence = open_store(tmp_path / "s.zarr", "val")[0]
    assert not sequence.has_spikes
    with pytest.raises(StoreError, match="--kind packed"):
        sequence.spikes_beside(0, 4)
    light = LightSequence(sequence).voxels(1, 3)
    for found, counts in zip(light, sequence.voxels(1, 3), strict=True):
        near(found, light_of_counts(counts, 33))


@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_a_crop_is_the_whole_cut_and_processes_may_have_it(
    data: DataSet, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.voxelize(tmp_path / "s.zarr", kind=kind)
    sequence = pickle.loads(pickle.dumps(LightSequence(open_store(tmp_path / "s.zarr", "val")[0])))
    whole = sequence.voxels(0, 5)
    monkeypatch.setattr("spikedeblur.pipeline.sequences.light._AT_ONCE_BYTES", 5000)  # row by row
    crop = sequence.voxels(1, 4, (3, 17), (10, 31))
    np.testing.assert_array_equal(crop, whole[1:4, :, 3:17, 10:31])
    np.testing.assert_array_equal(
        sequence.blur(1, 2), open_store(tmp_path / "s.zarr", "val")[0].blur(1, 2)
    )
    with pytest.raises(IndexError, match="windows 3:6"):
        sequence.voxels(3, 6)


def test_a_recording_has_all_that_is_beside_its_exposures(tmp_path: Path) -> None:
    data = make_data_set(tmp_path, centres=(4, 10), exposure=5, seqs=(SEQ,))
    (recording,) = recordings_of(data.manifest)
    sequence = RecordingSequence(recording, 8)
    light = LightSequence(sequence).voxels(0, 2)
    near(light[0], expected(data, 0, BESIDE, BESIDE))
    near(light[1], expected(data, 1, BESIDE, 0))  # the recording ends with the exposure


@pytest.mark.parametrize("beside", [0.0, 0.25])
def test_packed_spikes_are_those_of_each_exposure_and_beside_it(
    data: DataSet, tmp_path: Path, beside: float
) -> None:
    data.voxelize(tmp_path / "s.zarr", kind="packed")
    data.voxelize(tmp_path / "tree", format="npy")
    files = UnifiedFiles(log_paths=[data.log], precomputed=False)
    sequences = [
        open_store(tmp_path / "s.zarr", "val")[0],
        open_windows(tmp_path / "tree", "val", bins=8, files=files)[0],
    ]
    for sequence in sequences:
        packed = sequence.packed(1, 5, beside, (3, 17), (13, 35))
        for window, bits in enumerate(packed, 1):
            expected, before = sequence.spikes_beside(window, int(33 * beside), (3, 17), (13, 35))
            found = np.unpackbits(bits, axis=-1, bitorder="little")[..., 5 : 5 + 22]
            np.testing.assert_array_equal(found, expected)
            first, start, stop = sequence.known_samples(window, beside)
            assert (start - first, stop - first) == (before, len(expected))
        assert sequence.longest_window == 33
    starts = [sequences[0].known_samples(window, 0).start for window in range(5)]
    assert starts == [0, 16, 32, 48, 64]  # shared samples have one number


def test_counts_have_no_bits(data: DataSet, tmp_path: Path) -> None:
    data.voxelize(tmp_path / "s.zarr", kind="counts")
    with pytest.raises(StoreError, match="--kind packed"):
        open_store(tmp_path / "s.zarr", "val")[0].packed(0, 1, 0.25)
