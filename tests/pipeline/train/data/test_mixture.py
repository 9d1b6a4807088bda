"""Several stores that are trained on together: which clips come when, and what is refused."""

from __future__ import annotations

import itertools
import pickle
import tracemalloc
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_sets import MemorySequence

from spikedeblur.configs.schema import Config
from spikedeblur.pipeline.train.data import splits as splits_module
from spikedeblur.pipeline.train.data.loader import open_loader
from spikedeblur.pipeline.train.data.order import ClipIndex, MicroBatch, MixturePlan, StepPlan
from spikedeblur.pipeline.train.data.samples import SampleError
from spikedeblur.pipeline.train.data.splits import Part, Splits, names_of, open_splits


def mixture(lengths, weights, batch=2, accumulation=2, rank=0, world=1, begun_with=0, clip_len=3):
    """A plan over stores, each with sequences of some lengths."""
    indices = [(ClipIndex.every_start(store, clip_len), len(store)) for store in lengths]
    shares = tuple(Fraction(weight) / sum(map(Fraction, weights)) for weight in weights)
    counts = tuple(len(index) for index, _ in indices)
    dealt = (batch, accumulation, 5, rank, world, begun_with)
    return MixturePlan(ClipIndex.joined(indices), *dealt, counts=counts, shares=shares)


def store_of(plan: MixturePlan, clips: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(plan.counts), clips, side="right")


def test_sixty_thirty_ten_over_three_thousand_samples():
    plan = mixture([[40, 60], [700, 300], [9]], [60, 30, 10])
    epochs, clips = plan.samples(0, 3000)
    stores = store_of(plan, clips)
    for share, count in zip((0.6, 0.3, 0.1), np.bincount(stores), strict=True):
        assert abs(count / 3000 - share) < 0.01 * share
    for store in range(3):
        own = stores == store
        seen: Counter[int] = Counter()
        for epoch, clip in zip(epochs[own].tolist(), clips[own].tolist(), strict=True):
            assert seen[clip] == epoch
            seen[clip] += 1
            assert seen[clip] <= 1 + min(
                seen[other]
                for other in np.flatnonzero(store_of(plan, np.arange(len(plan.index))) == store)
            )
    # No long stretch without a store, and no fixed turn either.
    gaps = np.diff(np.flatnonzero(stores == 2))
    assert gaps.max() < 200
    assert len(set(gaps.tolist())) > 10


stores = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=5)


@settings(max_examples=20)
@given(stores, st.data())
def test_shares_hold_at_any_point_of_a_run_for_any_weights(lengths, data):
    size = {"min_size": len(lengths), "max_size": len(lengths)}
    weights = data.draw(st.lists(st.floats(1e-6, 1e6), **size))
    plan = mixture(lengths, weights)
    epochs, clips = plan.samples(0, 400)
    stores = store_of(plan, clips)
    for end in (100, 300, 400):
        found = np.bincount(stores[:end], minlength=len(lengths))
        for count, share in zip(found, plan.shares, strict=True):
            assert abs(count - end * share) <= len(lengths)
    for store, count in enumerate(plan.counts):
        own = np.flatnonzero(stores == store)
        assert epochs[own].tolist() == [n // count for n in range(own.size)]
        for epoch in range(own.size // count):
            once = clips[own[epoch * count : (epoch + 1) * count]]
            assert len(set(once.tolist())) == count
    start = data.draw(st.integers(0, 399))
    stop = data.draw(st.integers(start + 1, 400))
    part = plan.samples(start, stop)
    assert np.array_equal(part[0], epochs[start:stop])
    assert np.array_equal(part[1], clips[start:stop])


def steps(plan: StepPlan, from_step: int, to_step: int) -> list[list[MicroBatch]]:
    found: list[list[MicroBatch]] = [[]]
    for batch in plan.batches(from_step, to_step):
        found[-1].append(batch)
        if batch.ends_step:
            found.append([])
    assert found.pop() == []
    assert len(found) == to_step - from_step
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_has_its_samples_in_batches_of_one_length_whoever_takes_it(world, batch):
    lengths, weights = [[4, 2, 1], [9, 9], [1, 5]], [5, 3, 2]
    plans = [mixture(lengths, weights, batch, 9, rank, world, 6) for rank in range(world)]
    together = zip(*[steps(plan, 3, 40) for plan in plans], strict=True)
    for step, dealt in enumerate(together, 3):
        epochs, clips = plans[0].samples(6 * step, 6 * step + 6)
        expected = sorted(zip(epochs.tolist(), clips.tolist(), strict=True))
        found = []
        for one in itertools.chain.from_iterable(dealt):
            assert 1 <= one.clips.size <= batch
            assert len({plans[0].index[clip].length for clip in one.clips.tolist()}) == 1
            if one.weight:
                assert one.weight / one.clips.size / world == pytest.approx(1 / 6)
                found += zip(one.epochs.tolist(), one.clips.tolist(), strict=True)
        assert sorted(found) == expected
        assert {len(batches) for batches in dealt} == {len(dealt[0])}
        assert len(dealt[0]) <= plans[0].batches_a_step
        for turn in zip(*dealt, strict=True):  # processes exchange gradients of one shape
            assert len({plans[0].index[int(b.clips[0])].length for b in turn}) == 1


@pytest.mark.parametrize("from_step", [1, 127, 128, 300])
def test_a_run_that_goes_on_from_any_step_takes_the_same_clips(from_step):
    plan = mixture([[30], [9, 9], [1, 5]], [5, 3, 2])
    assert str(steps(plan, from_step, 310)) == str(steps(plan, 0, 310)[from_step:])


def test_ten_million_clips_cost_what_ten_cost():
    tracemalloc.start()
    lengths = [[3_340] * 2_000, [5_000] * 1_000, [9]]
    plan = mixture(lengths, [6, 3, 1], 4, 6, clip_len=7)
    batches = list(plan.batches(1_000_000, 1_000_050))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.index) > 10_000_000
    assert len(batches) == 300
    assert peak < 2e6
    assert len(pickle.dumps(plan)) < 500_000


def config(stores, **data) -> Config:
    data = {"ROOT": stores, "K": 4, "CLIP_LEN": 2, "CROP_SIZE": 16, **data}
    return Config.model_validate({"DATA": data, "TRAIN": {"SEED": 3, "BATCH_SIZE": 2}})


SETS = {
    "a/x.zarr": [MemorySequence(f"train/s{n}/one", 4) for n in range(6)]
    + [MemorySequence("val/s0/one", 3)],
    "b/x.zarr": [MemorySequence("train/s0/one", 7), MemorySequence("val/s0/one", 2)],
    "own": [MemorySequence("train/mine", 5), MemorySequence("val/yours", 4)],
    "log": [MemorySequence(f"{s}/m", 5, voxel_dtype="float32") for s in ("train", "val")],
    "blind": [MemorySequence(f"{s}/m", 5, has_sharp=False) for s in ("train", "val")],
    "even": [MemorySequence(f"{s}/m", 5, (24, 32), ratio=1) for s in ("train", "val")],
}


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    def open_windows(root, split, **_):
        return [sequence for sequence in SETS[root] if sequence.seq.startswith(f"{split}/")]

    monkeypatch.setattr(splits_module, "open_windows", open_windows)


def test_equal_names_of_two_stores_are_told_apart():
    splits = open_splits(config(["a/x.zarr", {"ROOT": "b/x.zarr"}, "own"]))
    assert splits.names("validation") == [
        "a/x.zarr:val/s0/one",
        "b/x.zarr:val/s0/one",
        "own:val/yours",
    ]
    samples = splits.training_samples(config("own"))
    last = len(samples.index) - 1
    assert samples.sample(0, last)["seq"] == "own:train/mine"
    assert len({samples.names[samples.index[c].sequence] for c in range(last + 1)}) == 8


def test_one_store_is_what_it_was_however_it_is_named():
    for root in ("own", ["own"], [{"ROOT": "own", "WEIGHT": 5}]):
        given = config(root)
        splits = open_splits(given)
        plan = splits.plan(given, splits.training_samples(given).index, 0, 1)
        assert type(plan) is StepPlan
        assert splits.names("training") == ["train/mine"]
        assert splits.describe() == splits_module.describe_data(splits.training)


def test_shares_are_by_clips_or_by_weights():
    def shares(*weights):
        roots = zip(("a/x.zarr", "b/x.zarr", "own"), weights, strict=True)
        given = config([{"ROOT": root, "WEIGHT": weight} for root, weight in roots])
        splits = open_splits(given)
        return splits.plan(given, splits.training_samples(given).index, 0, 1).shares

    assert shares(None, None, None) == (Fraction(18, 28), Fraction(6, 28), Fraction(4, 28))
    assert shares(60, 30, 10) == (Fraction(6, 10), Fraction(3, 10), Fraction(1, 10))


def test_content_and_weights_are_one_hash_and_names_are_not():
    def sha(*stores):
        return open_splits(config(list(stores))).describe()["sha256"]

    two = sha("b/x.zarr", "own")
    assert sha({"ROOT": "b/x.zarr"}, "own") == two
    weighed = [{"ROOT": "b/x.zarr", "WEIGHT": 1}, {"ROOT": "own", "WEIGHT": 2}]
    assert len({two, sha("own", "b/x.zarr"), sha("a/x.zarr", "own"), sha(*weighed)}) == 4


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        ({"INCLUDE": ["s[0-2]/*"]}, [0, 1, 2]),
        ({"INCLUDE": ["train/s4/*", "*/s0/one"]}, [0, 4]),
        ({"EXCLUDE": ["train/s1/*", "s[45]/*"]}, [0, 2, 3]),
        ({"INCLUDE": ["s[0-3]/one"], "EXCLUDE": ["s2/*"]}, [0, 1, 3]),
    ],
)
def test_patterns_choose_sequences_by_name_with_or_without_the_split(patterns, taken):
    splits = open_splits(config([{"ROOT": "a/x.zarr", **patterns}, "own"]))
    expected = [f"train/s{n}/one" for n in taken]
    assert [s.seq for s in splits.by_store("training")[0]] == expected


def test_a_fraction_of_the_sequences_is_chosen_by_the_seed():
    def chosen(fraction, seed):
        given = config([{"ROOT": "a/x.zarr", "FRACTION": fraction}, "own"])
        given = given.model_copy(update={"TRAIN": given.TRAIN.model_copy(update={"SEED": seed})})
        splits = open_splits(given)
        assert len(splits.by_store("validation")[0]) == 1
        return [s.seq for s in splits.by_store("training")[0]]

    assert len(chosen(0.5, 1)) == 3
    assert len(chosen(0.01, 1)) == 1
    assert chosen(0.5, 1) == chosen(0.5, 1)
    assert len({tuple(chosen(0.5, seed)) for seed in range(8)}) > 3
    assert set(chosen(0.3, 2)) < set(chosen(0.7, 2))


@pytest.mark.parametrize(
    ("stores", "message"),
    [
        ([{"ROOT": "a/x.zarr", "INCLUDE": ["s9/*"]}], r"a/x.zarr: .*'s9/\*' of INCLUDE matches"),
        ([{"ROOT": "own", "EXCLUDE": ["none"]}], "'none' of EXCLUDE matches none"),
        ([{"ROOT": "own", "EXCLUDE": ["mine"]}, "a/x.zarr"], "own: .*leave nothing of the split"),
        ([{"ROOT": "own", "EXCLUDE": ["yours"]}], "'val' to validate on"),
        (["own", "a/x.zarr", {"ROOT": "./own"}], "there twice, and train/mine is in both"),
        (["own", "log"], "log:train/m: integer and floating voxels are mixed, here and in own"),
    ],
)
def test_stores_that_can_not_be_mixed_are_refused(stores, message, monkeypatch):
    monkeypatch.setitem(SETS, "./own", SETS["own"])
    with pytest.raises(SampleError, match=message):
        open_splits(config(stores))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("blind", "blind:train/m: has no sharp frames"),
        ("even", r"one ratio of frame size to spike size .*2 \(own:train/mine\), 1 \(even:train/m"),
    ],
)
def test_clips_that_can_not_be_mixed_are_refused(other, message):
    given = config(["own", other])
    with pytest.raises(SampleError, match=message):
        open_splits(given).training_samples(given)


def test_a_store_twice_with_patterns_that_share_nothing_is_two_parts():
    halves = [{"ROOT": "a/x.zarr", key: ["s[0-2]/*"]} for key in ("INCLUDE", "EXCLUDE")]
    splits = open_splits(config(halves))
    assert [part.name for part in splits.parts] == ["x.zarr", "x.zarr#2"]
    assert [len(part) for part in splits.by_store("training")] == [3, 3]
    assert [len(part) for part in splits.by_store("validation")] == [1, 0]


def test_stores_are_named_by_what_tells_them_apart():
    assert names_of(["data/a.zarr", "s3://b/c/b.zarr"]) == ["a.zarr", "b.zarr"]
    assert names_of(["x/one/s.zarr", "x/two/s.zarr"]) == ["one/s.zarr", "two/s.zarr"]
    assert names_of(["s.zarr", "a/s.zarr"]) == ["s.zarr", "a/s.zarr"]


def test_every_store_is_validated_on_where_windows_are_few():
    given = config(["a/x.zarr", "b/x.zarr", "own"])
    train = given.TRAIN.model_copy(update={"VAL_MAX_WINDOWS": 3})
    samples = open_splits(given).validation_samples(given.model_copy(update={"TRAIN": train}))
    stores = {
        samples.names[clip.sequence].split(":")[0]
        for clip in map(samples.index.__getitem__, range(len(samples.index)))
    }
    assert stores == {"a/x.zarr", "b/x.zarr", "own"}


@pytest.mark.slow
def test_workers_cut_the_same_batches_in_the_same_order():
    given = config(["a/x.zarr", "b/x.zarr", "own"], CLIP_LEN=5)
    splits = open_splits(given)
    samples = splits.training_samples(given)
    plan = splits.plan(given, samples.index, 0, 1)
    assert (
        len({clip.length for clip in map(samples.index.__getitem__, range(len(samples.index)))})
        == 2
    )
    found = []
    for workers in (0, 2):
        with open_loader(samples, plan, 3, 40, workers=workers, pin=False) as opened:
            found.append(
                [
                    [
                        (b["seq"], b["frame_index"], b["blur"].numpy().tobytes(), b["weight"])
                        for b in step
                    ]
                    for step in opened
                ]
            )
    assert len(found[0]) == 37
    assert found[0] == found[1]


def test_splits_of_one_store_need_no_parts():
    train = [MemorySequence("train/a", 3)]
    assert Splits(train, train).by_store("training") == [train]
    assert Splits(train, train, [Part("x", None, 1, 1)]).names("training") == ["x:train/a"]
