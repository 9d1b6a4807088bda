from __future__ import annotations

import pytest
import torch
from training_sets import MemorySequence, tiny_config

from spikedeblur.pipeline.store.jobs import available_cores
from spikedeblur.pipeline.training.loader import collate, open_loader, prepare_cache
from spikedeblur.pipeline.training.samples import ClipIndex, ClipSamples, StepPlan, window_bytes

INDEX = ClipIndex.every_start([4, 4, 1], 2)


def make(**options) -> ClipSamples:
    sequences = [MemorySequence("train/a"), MemorySequence("train/bb"), MemorySequence("c", 1)]
    return ClipSamples(sequences, INDEX, crop_size=8, augment=True, **options)


def cache_for(windows: float, workers: int, **options) -> tuple[ClipSamples, int, list[str]]:
    samples, notes = make(), []
    size = windows * window_bytes(samples.sequences[0]) / 2**30
    data = tiny_config(DATA={"CACHE_SIZE_GB": size, **options}).DATA
    return samples, prepare_cache(samples, data, workers, on_note=notes.append), notes


def test_a_split_that_fits_is_read_once_and_needs_no_workers():
    samples, workers, notes = cache_for(9, 2)
    assert workers == 0
    assert len(samples.cache) == 9
    assert samples.cache.statistics.misses == 0
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


def load(workers: int, from_step: int = 0, to_step: int = 8):
    plan = StepPlan(INDEX, 2, 2, seed=4)
    with open_loader(make(), plan, from_step, to_step, workers=workers, pin=False) as steps:
        return list(steps)


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
def test_workers_change_no_batch():
    expected = load(0)
    assert_equal(load(2), expected)
    assert_equal(load(1, 5), expected[5:])
