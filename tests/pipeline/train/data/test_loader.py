from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from training_sets import DeadlySequence, Listener, MemorySequence, UnreadableSequence, tiny_config

from spikedeblur.pipeline.host.machine import available_cores
from spikedeblur.pipeline.sequences.light import LightSequence
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.train.data.cache import LRUCache
from spikedeblur.pipeline.train.data.loader import collate, open_loader, preload, prepare_cache
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples, window_bytes
from spikedeblur.pipeline.train.data.workers import WorkerError, batch_bytes

INDEX = ClipIndex.every_start([4, 4, 1], 2)


def make(light: bool = False, frames: str = "uint8", **options) -> ClipSamples:
    names = (("train/a", 4), ("train/bb", 4), ("c", 1))
    sequences = [MemorySequence(*name, frame_dtype=frames) for name in names]
    if light:
        sequences = [LightSequence(sequence) for sequence in sequences]
    return ClipSamples(sequences, INDEX, crop_size=8, augment=True, **options)


def cache_for(windows: float, workers: int, **options) -> tuple[ClipSamples, int, list[str]]:
    samples, listener = make(), Listener()
    size = windows * window_bytes(samples.sequences[0]) / 2**30
    config = tiny_config(DATA={"CACHE_SIZE_GB": size, **options}, NUM_WORKERS=workers)
    return samples, prepare_cache(samples, config, reporter=listener), listener.notes


def test_a_split_that_fits_is_read_once_and_needs_no_workers():
    samples, workers, notes = cache_for(9, 2)
    assert workers == 0
    assert len(samples.cache) == 9
    assert samples.cache.misses == 0
    for sequence in samples.sequences:
        sequence.reads.clear()
    samples.sample(0, 1)
    assert not any(sequence.reads for sequence in samples.sequences)
    assert "reading the training split into memory once" in notes[0]


def test_a_split_that_does_not_fit_is_a_warning_and_the_limit_is_shared_by_workers():
    samples, workers, notes = cache_for(4, 2)
    assert workers == min(2, available_cores())
    assert samples.cache.limit_bytes == 4 * window_bytes(samples.sequences[0]) // workers
    assert "more than DATA.CACHE_SIZE_GB" in notes[-1]


def test_workers_are_capped_by_the_cores_with_a_note():
    _, workers, notes = cache_for(0, 1000)
    assert workers == available_cores()
    assert f"using {workers}" in notes[0]


def test_auto_leaves_one_core_to_training():
    _, workers, notes = cache_for(0, "auto")
    assert workers == min(available_cores() - 1, 8)
    assert not notes


def test_reading_ahead_in_threads_fills_the_cache_in_order():
    filled = []
    for threads in (1, 3):
        samples, seen = make(), []
        samples.cache = LRUCache(9 * window_bytes(samples.sequences[0]) / 2**30)
        preload(samples, threads, Listener(lambda *call: seen.append(call[:2])))  # noqa: B023
        assert seen == [(n, 9) for n in range(1, 10)]
        filled.append(samples.cache)
    for number, length in enumerate((4, 4, 1)):
        for window in range(length):
            one, three = (cache.get((number, window)) for cache in filled)
            assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))
    assert len(filled[0]) == len(filled[1]) == 9


def test_an_unreadable_window_ends_reading_ahead_with_its_own_error():
    samples = ClipSamples([UnreadableSequence()], ClipIndex.every_start([4], 2), crop_size=8)
    samples.cache = LRUCache(2**-10)
    with pytest.raises(StoreError, match="window 1 is damaged"):
        preload(samples, 2)


def test_windows_that_are_not_held_come_in_one_read():
    samples = make()
    sequence = samples.sequences[0]
    samples.cache = LRUCache(window_bytes(sequence) / 2**30)
    assert samples.sample(0, 0)["voxels"].shape[0] == 2  # window 0 is held now
    sequence.reads.clear()
    samples.cut(2, (0, 8), (0, 8))
    assert sequence.reads == ["voxels crop"]


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("frames", ["uint8", "uint16"])
def test_the_bytes_of_a_batch_are_those_of_its_arrays(light, frames):
    samples = make(light, frames)
    batch = collate([samples.sample(0, clip) for clip in (0, 1)])
    arrays = (batch["blur"], batch["sharp"], batch["voxels"])
    assert batch_bytes(samples, 2) == sum(array.numpy().nbytes for array in arrays)


def failing(sequence: MemorySequence, workers: int) -> None:
    index = ClipIndex.every_start([4], 2)
    samples = ClipSamples([sequence], index, crop_size=8)
    plan = StepPlan(index, 1)
    with open_loader(samples, plan, 0, 30, workers=workers, pin=False) as steps:
        for _ in steps:
            pass


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_sample_that_can_not_be_read_is_an_error_that_says_only_so(workers):
    with pytest.raises(StoreError) as caught:
        failing(UnreadableSequence(), workers)
    assert str(caught.value) == "train/a: window 1 is damaged"


@pytest.mark.slow
def test_a_killed_worker_is_reported_as_such():
    with pytest.raises(WorkerError, match=r"ended from outside \(signal 9\), most often for lack"):
        failing(DeadlySequence(), 1)


def test_no_cache_where_it_is_switched_off():
    samples, _, _ = cache_for(9, 0, USE_RAM_CACHE=False)
    assert samples.cache is None


def test_counts_of_one_and_of_two_bytes_share_a_batch_unchanged():
    sequences = [MemorySequence("train/a"), MemorySequence("train/b", voxel_dtype="uint16")]
    samples = ClipSamples(sequences, ClipIndex.every_start([4, 4], 4), crop_size=24)
    both = [samples.sample(0, clip) for clip in (0, 1)]
    both[1]["voxels"] += 1000
    batch = collate(both)
    assert batch["voxels"].dtype == torch.uint16
    for stacked, sample in zip(batch["voxels"], both, strict=True):
        assert stacked.tolist() == sample["voxels"].tolist()


def load(workers: int, from_step: int = 0, to_step: int = 8, **what):
    plan = StepPlan(INDEX, 2, 2, seed=4)
    with open_loader(make(**what), plan, from_step, to_step, workers=workers, pin=False) as steps:
        return [copy.deepcopy(step) for step in steps]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for batches, others in zip(found, expected, strict=True):
        assert len(batches) == len(others)
        for batch, other in zip(batches, others, strict=True):
            assert batch.keys() == other.keys()
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    torch.testing.assert_close(value, other[name], rtol=0, atol=0, equal_nan=True)
                elif name != "cache":
                    assert value == other[name]


def test_starting_at_a_step_gives_the_rest_of_the_run():
    everything = load(0)
    epoch = StepPlan(INDEX, 2, 2).steps_an_epoch
    assert epoch == 3
    for step in (1, epoch, 5):
        assert_equal(load(0, step), everything[step:])


@pytest.mark.slow
@pytest.mark.parametrize("what", [{}, {"light": True}, {"frames": "uint16"}])
def test_workers_change_no_batch(what):
    expected = load(0, **what)
    assert_equal(load(2, **what), expected)
    assert_equal(load(1, 5, **what), expected[5:])
