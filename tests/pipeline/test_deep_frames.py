"""Frames of 16 bits from a data set to a store, to what a network is given, and to scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import DataSet, make_data_set, record
from training_sets import MemorySequence

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import unit_range
from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.evaluate import evaluate
from spikedeblur.pipeline.frames.images import read_frame, write_png16
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples, window_bytes


def deepen(data: DataSet, pattern: str = "*.png") -> None:
    """Give frames 16 bits: values between the levels of 8; the manifest is of the new files."""
    rng = np.random.default_rng(9)
    for path in sorted(data.root.rglob(pattern)):
        frame = read_frame(path)
        deep = np.minimum(frame.astype(np.int64) * 257 + rng.integers(0, 200, frame.shape), 65535)
        write_png16(path, deep.astype(np.uint16))
    manifest = read_manifest(data.manifest)
    root = manifest.root_folder(data.manifest)
    sequences = tuple(
        sequence.model_copy(update={"files": {p: record(root / p) for p in sequence.files}})
        for sequence in manifest.sequences
    )
    write_manifest(data.manifest, manifest.model_copy(update={"sequences": sequences}))


@pytest.fixture
def deep(tmp_path: Path) -> DataSet:
    data = make_data_set(tmp_path)
    deepen(data)
    return data


@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_a_store_holds_16_bits_where_the_source_has_them(deep, tmp_path, kind) -> None:
    deep.voxelize(tmp_path / "s.zarr", kind=kind)
    for sequence in open_store(tmp_path / "s.zarr"):
        assert sequence.frame_dtype == "uint16"
        for name in ("blur", "sharp"):
            frames = getattr(sequence, name)(0, sequence.length)
            files = [
                deep.root / "raw" / sequence.seq / name / f"{centre:04d}.png"
                for centre in deep.centres
            ]
            np.testing.assert_array_equal(frames, np.stack([read_frame(f) for f in files]))
            assert (frames % 257 != 0).any()
    assert deep.voxelize(tmp_path / "s.zarr", kind=kind).sequences_kept == len(deep.seqs)
    (scores,) = evaluate(tmp_path / "s.zarr", split="val", methods=("blur",)).methods.values()
    assert 0 < scores.psnr < 20  # random frames


def test_sharp_frames_of_16_bits_beside_blurred_ones_of_8_make_both_16(tmp_path) -> None:
    data = make_data_set(tmp_path)
    before = data.frames["val/b/two", "blur", 2]
    deepen(data, "sharp/*.png")
    data.voxelize(tmp_path / "s.zarr")
    (sequence,) = open_store(tmp_path / "s.zarr", "val")
    np.testing.assert_array_equal(sequence.blur(0, 1)[0], before.astype(np.uint16) * 257)


def test_a_later_frame_of_16_bits_is_refused_by_name(tmp_path) -> None:
    data = make_data_set(tmp_path)
    deepen(data, "blur/0006.png")
    with pytest.raises(SpikeDeblurError, match=r"0006\.png: expected 8 bits a channel as in"):
        data.voxelize(tmp_path / "s.zarr")


def test_training_gets_values_between_the_levels_of_8_bits(deep, tmp_path) -> None:
    deep.voxelize(tmp_path / "s.zarr")
    (sequence,) = open_store(tmp_path / "s.zarr", "val")
    samples = ClipSamples([sequence], ClipIndex.every_start([5], 2), crop_size=40, augment=False)
    sample = samples.sample(0, 0)
    assert sample["blur"].dtype == np.float32
    blur = sequence.blur(0, 2)[:, :, :40].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(
        np.sort(samples.cut(0, (0, 40), (0, 40))["blur"], axis=None),
        np.sort(blur / np.float32(65535), axis=None),
    )
    assert torch.equal(
        unit_range(torch.from_numpy(blur.copy())), torch.from_numpy(blur / np.float32(65535))
    )
    assert window_bytes(sequence) > 2 * 6 * 40 * 72


def test_frames_of_8_bits_beside_those_of_16_keep_their_light() -> None:
    plain, deep = MemorySequence("train/a"), MemorySequence("train/b")
    deep.frame_dtype = "uint16"
    samples = ClipSamples([plain, deep], ClipIndex.every_start([4, 4], 2), crop_size=8)
    sample = samples.cut(0, (0, 8), (0, 8))
    expected = plain.blur(0, 2, (0, 8), (0, 8)).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(sample["blur"], expected)
