from __future__ import annotations

import itertools

import numpy as np
import pytest
from training_sets import MemorySequence

from spikedeblur.pipeline.train.data.cache import LRUCache
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples, SampleError, window_bytes


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("augment", [False, True])
def test_frames_and_spikes_show_the_same_place(ratio, augment):
    sequence = MemorySequence(ratio=ratio, length=3)
    index = ClipIndex.every_start([3], 2)
    samples = ClipSamples([sequence], index, crop_size=6 * ratio, augment=augment, seed=0)
    for clip, epoch in itertools.product(range(len(index)), range(20)):
        sample = samples.sample(epoch, clip)
        assert sample["blur"].shape == (2, 3, 6 * ratio, 6 * ratio)
        assert sample["voxels"].shape == (2, 4, 6, 6)
        large = sample["voxels"][:, :1].repeat(ratio, 2).repeat(ratio, 3)
        np.testing.assert_array_equal(sample["blur"], large.repeat(3, axis=1))
        np.testing.assert_array_equal(sample["sharp"], 255 - sample["blur"])


def test_augmentation_reaches_all_eight_orientations_and_crops_all_places():
    sequence = MemorySequence(length=1)
    index = ClipIndex.every_start([1], 1)
    plain = ClipSamples([sequence], index, crop_size=24, augment=False, seed=0)
    turned = ClipSamples([sequence], index, crop_size=24, augment=True, seed=0)
    corners, orientations = set(), set()
    for epoch in range(80):
        before, after = plain.sample(epoch, 0)["voxels"], turned.sample(epoch, 0)["voxels"]
        corners.add(int(before[0, 0, 0, 0]))
        for turns, flip in itertools.product(range(4), (1, -1)):
            if np.array_equal(np.rot90(before, turns, (2, 3))[..., ::flip], after):
                orientations.add((turns, flip))
    assert len(orientations) == 8
    assert len(corners) == 5  # 16 - 12 + 1 columns, one row


def test_a_sample_carries_where_it_is_from():
    sequence = MemorySequence(gain=None)
    samples = ClipSamples([sequence], ClipIndex.every_start([4], 3), crop_size=8)
    sample = samples.sample(0, 1)
    assert sample["seq"] == "train/a"
    assert sample["frame_index"] == [31, 46, 61]
    assert sample["t0"] == [0.015, 0.03, 0.045]
    assert sample["t1"] == [0.047, 0.062, 0.077]
    assert sample["samples"].tolist() == [257] * 3
    assert np.isnan(sample["gain"])


@pytest.mark.parametrize("limit_windows", [0, 2, 100])
def test_a_cache_changes_no_sample(limit_windows):
    sequences = [MemorySequence("train/a"), MemorySequence("train/bb")]
    index = ClipIndex.every_start([4, 4], 2)
    plain = ClipSamples(sequences, index, crop_size=8, augment=True)
    limit = limit_windows * window_bytes(sequences[0])
    cached = ClipSamples(sequences, index, crop_size=8, augment=True, cache=LRUCache(limit / 2**30))
    for epoch, clip in itertools.product(range(3), range(len(index))):
        expected, found = plain.sample(epoch, clip), cached.sample(epoch, clip)
        for name in ("blur", "sharp", "voxels"):
            np.testing.assert_array_equal(found[name], expected[name])
    assert cached.cache.hits + cached.cache.misses == 3 * len(index) * 2
    assert cached.cache.bytes <= limit
    assert (cached.cache.hits > 0) == (limit_windows > 0)


def test_only_the_crop_is_read_when_the_cache_is_full_and_the_crop_small():
    sequence = MemorySequence()
    cache = LRUCache(window_bytes(sequence) / 2**30)
    samples = ClipSamples([sequence], ClipIndex.every_start([4], 2), crop_size=8, cache=cache)
    samples.sample(0, 0)
    assert sequence.reads == ["voxels whole", "voxels crop"]
    large = ClipSamples([sequence], ClipIndex.every_start([4], 2), crop_size=24, cache=cache)
    sequence.reads.clear()
    large.sample(0, 2)
    assert sequence.reads == ["voxels whole", "voxels whole"]
    assert cache.evictions == 2


@pytest.mark.parametrize("voxel_dtype", ["uint8", "uint16", "float32"])
def test_the_estimate_of_a_window_is_what_it_takes(voxel_dtype):
    sequence = MemorySequence(length=1, voxel_dtype=voxel_dtype)
    arrays = (sequence.blur(0, 1), sequence.sharp(0, 1), sequence.voxels(0, 1))
    assert window_bytes(sequence) == sum(array.nbytes for array in arrays)


@pytest.mark.parametrize(
    ("sequences", "crop", "message"),
    [
        ([MemorySequence(has_sharp=False)], 8, "train/a: has no sharp frames"),
        ([MemorySequence()], 32, "frames of 24x32 are smaller than DATA.CROP_SIZE 32"),
        ([MemorySequence(ratio=3)], 16, "multiple of 3"),
        ([MemorySequence(), MemorySequence("train/b", ratio=1)], 8, "2 .train/a., 1 .train/b."),
    ],
)
def test_data_that_does_not_fit_is_refused_before_reading(sequences, crop, message):
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    with pytest.raises(SampleError, match=message):
        ClipSamples(sequences, index, crop_size=crop)
    assert all(not sequence.reads for sequence in sequences)
