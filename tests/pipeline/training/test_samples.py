from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_sets import MemorySequence

from spikedeblur.pipeline.training.cache import WindowCache
from spikedeblur.pipeline.training.samples import (
    ClipIndex,
    ClipSamples,
    SampleError,
    StepPlan,
    window_bytes,
)

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def clips(index: ClipIndex) -> list[tuple[int, int, int]]:
    return list(
        zip(index.sequence.tolist(), index.start.tolist(), index.length.tolist(), strict=True)
    )


@given(lengths, st.integers(1, 5))
def test_every_start_gives_a_clip_and_a_short_sequence_one_whole(lengths, clip_len):
    expected = []
    for number, length in enumerate(lengths):
        if length < clip_len:
            expected.append((number, 0, length))
        else:
            expected += [(number, start, clip_len) for start in range(length - clip_len + 1)]
    assert clips(ClipIndex.every_start(lengths, clip_len)) == expected


@given(lengths, st.integers(1, 5))
def test_validation_clips_hold_each_window_once(lengths, clip_len):
    seen = [
        (number, window)
        for number, start, length in clips(ClipIndex.each_window_once(lengths, clip_len))
        for window in range(start, start + length)
    ]
    assert sorted(seen) == [(n, w) for n, length in enumerate(lengths) for w in range(length)]


@given(lengths, st.integers(1, 5), st.integers(1, 12))
def test_validation_keeps_to_its_limit_of_windows(lengths, clip_len, most):
    index = ClipIndex.each_window_once(lengths, clip_len, most)
    assert 1 <= index.length.sum() <= most
    assert len(set(zip(index.sequence.tolist(), index.start.tolist(), strict=True))) == len(index)


def test_limited_validation_is_spread_over_the_split():
    index = ClipIndex.each_window_once([3] * 100, 3, 12)
    assert np.diff(index.sequence).min() >= 15


@given(
    lengths=lengths,
    batch=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    world=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_an_epoch_deals_every_clip_once_in_batches_of_one_length(
    lengths, batch, accumulation, world, epoch
):
    index = ClipIndex.every_start(lengths, 3)
    plans = [StepPlan(index, batch, accumulation, 5, rank, world) for rank in range(world)]
    n = plans[0].steps_an_epoch
    dealt = [list(plan.batches(epoch * n, (epoch + 1) * n)) for plan in plans]
    seen = []
    for step in zip(*dealt, strict=True):
        assert len({len(batches) for batches in step}) == 1, "processes must stay in step"
        weights = 0.0
        for one in itertools.chain.from_iterable(step):
            assert one.epoch == epoch
            assert 1 <= one.clips.size <= batch
            assert len(set(index.length[one.clips].tolist())) == 1
            weights += one.weight / world
            if one.weight:
                seen += one.clips.tolist()
        assert weights == pytest.approx(1)
        # Every sample weighs the same.
        each = {round(b.weight / b.clips.size, 9) for batches in step for b in batches if b.weight}
        assert len(each) == 1
    assert sorted(seen) == list(range(len(index)))


@pytest.mark.parametrize(("batch", "accumulation", "world"), [(1, 6, 1), (3, 1, 2), (1, 3, 2)])
def test_a_step_holds_the_same_clips_however_they_are_dealt(batch, accumulation, world):
    index = ClipIndex.every_start([7, 2, 9, 4], 3)
    whole = [sorted(b[0].clips.tolist()) for b in StepPlan(index, 6, seed=3).batches(0, 7)]
    dealt = []
    for rank in range(world):
        plan = StepPlan(index, batch, accumulation, 3, rank, world)
        dealt.append(
            [[c for b in bs if b.weight for c in b.clips.tolist()] for bs in plan.batches(0, 7)]
        )
    assert [sorted(itertools.chain(*parts)) for parts in zip(*dealt, strict=True)] == whole


@given(lengths, st.integers(0, 20), st.integers(0, 10))
def test_batches_from_a_step_on_are_the_tail_of_all(lengths, from_step, more):
    plan = StepPlan(ClipIndex.every_start(lengths, 2), 2, 2, seed=1)
    everything = list(plan.batches(0, from_step + more))
    tail = list(plan.batches(from_step, from_step + more))
    assert str(tail) == str(everything[from_step:])


def test_epochs_and_seeds_differ_in_order():
    index = ClipIndex.every_start([30], 2)
    orders = [
        tuple(StepPlan(index, 2, seed=seed).steps(epoch)[0].tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4


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
    cached = ClipSamples(sequences, index, crop_size=8, augment=True, cache=WindowCache(limit))
    for epoch, clip in itertools.product(range(3), range(len(index))):
        expected, found = plain.sample(epoch, clip), cached.sample(epoch, clip)
        for name in ("blur", "sharp", "voxels"):
            np.testing.assert_array_equal(found[name], expected[name])
    statistics = cached.cache.statistics
    assert statistics.hits + statistics.misses == 3 * len(index) * 2
    assert cached.cache.bytes <= limit
    assert (statistics.hits > 0) == (limit_windows > 0)


def test_only_the_crop_is_read_when_the_cache_is_full_and_the_crop_small():
    sequence = MemorySequence()
    cache = WindowCache(window_bytes(sequence))
    samples = ClipSamples([sequence], ClipIndex.every_start([4], 2), crop_size=8, cache=cache)
    samples.sample(0, 0)
    assert sequence.reads == ["voxels whole", "voxels crop"]
    large = ClipSamples([sequence], ClipIndex.every_start([4], 2), crop_size=24, cache=cache)
    sequence.reads.clear()
    large.sample(0, 2)
    assert sequence.reads == ["voxels whole", "voxels whole"]
    assert cache.statistics.evictions == 2


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
