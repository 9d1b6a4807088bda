from __future__ import annotations

import itertools
import math
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikedeblur.pipeline.train.data.order import ClipIndex, MicroBatch, StepPlan
from spikedeblur.pipeline.train.data.shuffle import shuffled

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def clips(index: ClipIndex) -> list[tuple[int, int, int]]:
    return [tuple(index[clip]) for clip in range(len(index))]


def steps(plan: StepPlan, from_step: int, to_step: int) -> list[list[MicroBatch]]:
    found: list[list[MicroBatch]] = [[]]
    for batch in plan.batches(from_step, to_step):
        found[-1].append(batch)
        if batch.ends_step:
            found.append([])
    assert found.pop() == []
    assert len(found) == to_step - from_step
    return found


@given(lengths, st.integers(1, 5))
def test_every_start_gives_a_clip_and_a_short_sequence_one_whole(lengths, clip_len):
    expected = []
    for number, length in enumerate(lengths):
        if length < clip_len:
            expected.append((number, 0, length))
        else:
            expected += [(number, start, clip_len) for start in range(length - clip_len + 1)]
    expected.sort(key=lambda clip: (-clip[2], clip))
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
    found = clips(ClipIndex.each_window_once(lengths, clip_len, most))
    assert 1 <= sum(length for _, _, length in found) <= most
    assert len({(number, start) for number, start, _ in found}) == len(found)
    for number, start, length in found:
        assert start % clip_len == 0
        assert start + length <= lengths[number]


def test_limited_validation_is_spread_over_the_split():
    index = ClipIndex.each_window_once([3] * 100, 3, 12)
    assert np.diff([clip.sequence for clip in map(index.__getitem__, range(4))]).min() >= 15


@pytest.mark.parametrize("clip", [-1, 10])
def test_a_clip_that_is_not_there_is_refused(clip):
    with pytest.raises(IndexError, match="of 10"):
        ClipIndex.every_start([11], 2)[clip]


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
    dealt = [steps(plan, epoch * n, (epoch + 1) * n) for plan in plans]
    seen = []
    for step in zip(*dealt, strict=True):
        assert len({len(batches) for batches in step}) == 1, "processes must stay in step"
        weights = 0.0
        for one in itertools.chain.from_iterable(step):
            assert one.epochs.tolist() == [epoch] * one.clips.size
            assert 1 <= one.clips.size <= batch
            assert len({index[int(clip)].length for clip in one.clips}) == 1
            weights += one.weight / world
            if one.weight:
                seen += one.clips.tolist()
        assert weights == pytest.approx(1)
        # Every sample weighs the same.
        each = {round(b.weight / b.clips.size, 9) for batches in step for b in batches if b.weight}
        assert len(each) == 1
    assert sorted(seen) == list(range(len(index)))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
def test_a_step_holds_the_same_clips_with_the_same_weights_whoever_goes_on_with_it(batch, world):
    index = ClipIndex.every_start([7, 2, 9, 4], 3)
    whole = [b[0].clips.tolist() for b in steps(StepPlan(index, 6, seed=3), 0, 7)]
    plans = [StepPlan(index, batch, 2, 3, rank, world, 6) for rank in range(world)]
    together = zip(*[steps(plan, 0, 7) for plan in plans], strict=True)
    for clips, dealt in zip(whole, together, strict=True):
        weights = dict.fromkeys(clips, 0.0)
        for one in itertools.chain.from_iterable(dealt):
            assert one.clips.size <= batch
            assert one.clips.tolist() == clips[one.place : one.place + one.clips.size]
            for clip in one.clips.tolist():
                weights[clip] += one.weight / one.clips.size / world
        assert weights == pytest.approx(dict.fromkeys(clips, 1 / len(clips)))
        assert {len(batches) for batches in dealt} == {len(dealt[0])}
        assert len(dealt[0]) <= plans[0].batches_a_step


@given(lengths, st.integers(0, 20), st.integers(0, 10))
def test_batches_from_a_step_on_are_the_tail_of_all(lengths, from_step, more):
    plan = StepPlan(ClipIndex.every_start(lengths, 2), 2, 2, seed=1)
    everything = steps(plan, 0, from_step + more)
    assert str(steps(plan, from_step, from_step + more)) == str(everything[from_step:])


@pytest.mark.parametrize("from_step", [127, 128, 300])
def test_the_tail_is_the_same_where_steps_are_planned_in_blocks(from_step):
    plan = StepPlan(ClipIndex.every_start([700, 400, 1], 2), 2, 1, seed=1)
    assert plan.steps_an_epoch > 256
    assert str(steps(plan, from_step, 650)) == str(steps(plan, 0, 650)[from_step:])


def test_epochs_and_seeds_differ_in_order():
    index = ClipIndex.every_start([30], 2)
    orders = [
        tuple(np.concatenate(plan.clips(epoch, 0, plan.steps_an_epoch)).tolist())
        for plan in (StepPlan(index, 2, seed=seed) for seed in (0, 1))
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_ten_million_clips_cost_what_ten_cost():
    tracemalloc.start()
    index = ClipIndex.every_start([3_340] * 3_000, 7)
    plan = StepPlan(index, 4, 6, seed=1)
    batches = list(plan.batches(1_000_000, 1_000_050))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) > 10_000_000
    assert len(batches) == 300
    assert peak < 2e6
    assert len(pickle.dumps(plan)) < 500_000


@given(st.integers(1, 300), st.lists(st.integers(0, 2**32), min_size=1, max_size=3))
def test_shuffling_keeps_each_number_once(size, key):
    assert sorted(shuffled(np.arange(size), size, key).tolist()) == list(range(size))


def test_a_place_can_be_asked_for_alone():
    whole = shuffled(np.arange(1000), 1000, [3])
    assert [int(shuffled(np.array([i]), 1000, [3])[0]) for i in (0, 1, 999)] == [
        whole[i] for i in (0, 1, 999)
    ]


@pytest.mark.parametrize(("size", "limit"), [(2, 10.8), (3, 20.5), (4, 49.7)])  # p = 0.001
def test_every_order_is_as_likely_as_every_other(size, limit):
    draws = 4_000
    seen = Counter(tuple(shuffled(np.arange(size), size, [7, n]).tolist()) for n in range(draws))
    expected = draws / math.factorial(size)
    orders = itertools.permutations(range(size))
    assert sum((seen[order] - expected) ** 2 / expected for order in orders) < limit


def test_neighbours_do_not_stay_together():
    size, draws = 500, 200
    orders = [shuffled(np.arange(size), size, [5, n]) for n in range(draws)]
    together = sum(int((np.abs(np.diff(order)) == 1).sum()) for order in orders)
    expected = draws * 2 * (size - 1) / size
    assert abs(together - expected) < 5 * math.sqrt(expected)


def test_the_clips_of_two_stores_come_one_store_after_the_other():
    first, second = ClipIndex.every_start([5, 2], 2), ClipIndex.every_start([3], 2)
    both = ClipIndex.joined([(first, 2), (second, 1)])
    assert list(both) == [*first, *((2, start, length) for _, start, length in second)]
    assert ClipIndex.joined([(first, 2)]) is first
