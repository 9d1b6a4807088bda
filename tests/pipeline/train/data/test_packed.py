"""Batches of packed spikes: from them the device makes what other batches hold, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import DataSet, make_data_set
from torch._subclasses.fake_tensor import FakeTensorMode
from training_sets import SMALL, Listener, TinyNetwork, tiny_config

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import NormConfig
from spikedeblur.configs.schema.data import SpikeAugmentConfig
from spikedeblur.pipeline.sequences.contract import KnownSamples, WindowSequence
from spikedeblur.pipeline.sequences.light import beside_exposure, seen_by
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.sequences.unified import UnifiedFiles, open_windows
from spikedeblur.pipeline.train.data.cache import LRUCache
from spikedeblur.pipeline.train.data.loader import collate, open_loader, prepare_cache
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.packed import join
from spikedeblur.pipeline.train.data.samples import ClipSamples, SampleError, window_bytes
from spikedeblur.pipeline.train.data.splits import Part, Splits
from spikedeblur.pipeline.train.data.voxels import make_voxels
from spikedeblur.pipeline.train.data.workers import batch_bytes
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import fit
from spikedeblur.pipeline.train.objective import Objective, to_inputs
from spikedeblur.pipeline.train.run.folder import read_resumable
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

CPU = torch.device("cpu")
LIGHT, COUNTS = NormConfig(MODE="relative"), NormConfig()
SEQS = ("train/a/one", "train/b", "val/c")
OTHERS = SpikeAugmentConfig(
    CHANCE=0.8, THRESHOLD=3, NOISE=0.1, DEAD=0.1, ROWS=0.1, LATE=0.2, TINT=0.2, GRAIN=0.05, THIN=0.5
)

both_norms = pytest.mark.parametrize("norm", [LIGHT, COUNTS], ids=["light", "counts"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of windows of 33 samples, which overlap, and of 17, which have gaps too."""
    folder = tmp_path_factory.mktemp("packed")
    data(folder / "long").voxelize(folder / "long.zarr")
    short = make_data_set(folder / "short", centres=(1, 2, 9, 10), exposure=3, seqs=SEQS, seed=1)
    short.voxelize(folder / "short.zarr")
    data(folder / "counts").voxelize(folder / "counts.zarr", kind="counts")
    return folder


def data(folder: Path) -> DataSet:
    return make_data_set(folder, seqs=SEQS)


def opened(folder: Path, split: str = "train", names: str = "long short") -> list[WindowSequence]:
    return [s for name in names.split() for s in open_store(folder / f"{name}.zarr", split)]


def cutters(
    sequences: list[WindowSequence], norm: NormConfig, length: int = 3
) -> tuple[ClipSamples, ClipSamples]:
    """Return what cuts samples with voxels, and with packed spikes."""
    index = ClipIndex.every_start([s.length for s in sequences], length)
    how = {"crop_size": 24, "augment": True, "seed": 5}
    return (
        ClipSamples(seen_by(norm, sequences), index, **how),
        ClipSamples(sequences, index, beside=beside_exposure(norm), **how),
    )


def batches(samples: ClipSamples, count: int = 6):
    """Yield batches of clips of all sequences."""
    clips = len(samples.index)
    for epoch in range(count):
        yield collate([samples.sample(epoch, (epoch + 2 * i) % clips) for i in range(4)])


def assert_same_but_voxels(batch, other) -> None:
    for name in ("blur", "sharp", "samples", "gain"):
        torch.testing.assert_close(batch[name], other[name], rtol=0, atol=0, equal_nan=True)
    for name in ("seq", "frame_index", "changes", "t0", "t1", "unread"):
        assert batch[name] == other[name]


@both_norms
def test_crops_turned_and_mirrored_have_the_same_voxels_either_way(folder, norm):
    ordinary, packed = cutters(opened(folder), norm)
    seen, lengths = set(), set()
    for batch, other in zip(batches(ordinary), batches(packed), strict=True):
        assert "voxels" not in other
        assert_same_but_voxels(batch, other)
        voxels = make_voxels(other, CPU, light=norm is LIGHT)
        assert voxels.dtype == batch["voxels"].dtype
        assert torch.equal(voxels, batch["voxels"])
        seen |= {
            (columns[0], *turned)
            for columns, turned in zip(other["columns"], other["turned"], strict=True)
        }
        lengths |= set(other["samples"].flatten().tolist())
    assert lengths == {33, 17}
    assert len(seen) > 12


def made(root: Path, norm: NormConfig, log: Path) -> tuple[ClipSamples, ClipSamples]:
    files = UnifiedFiles(log_paths=[log], precomputed=False)
    return cutters(list(open_windows(root, "train", bins=8, files=files)), norm)


@both_norms
@pytest.mark.parametrize("one_stream", [False, True])
def test_dat_files_are_packed_too(tmp_path, norm, one_stream):
    source = data(tmp_path)
    source.voxelize(tmp_path / "tree", format="npy")
    if one_stream:
        for seq in SEQS:
            here = tmp_path / "tree" / seq / "spike"
            side = (here / "spikes.json").read_text()
            for file in here.iterdir():
                file.unlink()
            (here / "spike.dat").write_bytes((source.root / "raw" / seq / "spike.dat").read_bytes())
            (here / "spikes.json").write_text(side)
    ordinary, packed = made(tmp_path / "tree", norm, source.log)
    for batch, other in zip(batches(ordinary), batches(packed), strict=True):
        assert torch.equal(make_voxels(other, CPU, light=norm is LIGHT), batch["voxels"])


@both_norms
@pytest.mark.parametrize("augment", [None, OTHERS], ids=["plain", "other cameras"])
def test_the_network_is_given_the_same_numbers(folder, norm, augment):
    ordinary, packed = cutters(opened(folder), norm)
    windows = set()
    for number, pair in enumerate(zip(batches(ordinary), batches(packed), strict=True)):
        found, other = (
            to_inputs(batch, CPU, norm, augment=augment, thinning=number) for batch in pair
        )
        for one, two in zip(found, other, strict=True):
            assert torch.equal(one, two)
        windows.add(found.voxels.shape[1])
    assert len(windows) == (1 if augment is None else 3)  # THIN left 1, 2 and 3


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built for CPUs only")
@both_norms
def test_a_gpu_is_given_bits_and_makes_the_rest(folder, norm):
    _, packed = cutters(opened(folder), norm)
    batch = next(batches(packed))
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors of a GPU, without any
        voxels = make_voxels(batch, torch.device("cuda"), light=norm is LIGHT)
    assert (voxels.device.type, voxels.shape) == ("cuda", (4, 3, 8, 12, 12))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@both_norms
def test_a_gpu_makes_the_voxels_of_a_cpu_within_a_step_of_float16(folder, norm):
    ordinary, packed = cutters(opened(folder), norm)
    for batch, other in zip(batches(ordinary), batches(packed), strict=True):
        found = make_voxels(other, torch.device("cuda"), light=norm is LIGHT).cpu()
        if norm is COUNTS:
            assert torch.equal(found, batch["voxels"])
        else:
            steps = found.view(torch.int16).int() - batch["voxels"].view(torch.int16).int()
            assert steps.abs().max() <= 1


def test_bins_of_more_samples_than_a_byte_counts_are_the_same(tmp_path):
    source = make_data_set(tmp_path, centres=(33, 34), exposure=67, seqs=SEQS[:1])
    source.voxelize(tmp_path / "s.zarr", bins=2)
    ordinary, packed = cutters(open_store(tmp_path / "s.zarr"), COUNTS, 2)
    (batch, other), *_ = zip(batches(ordinary), batches(packed), strict=True)
    assert batch["voxels"].dtype == torch.uint16
    voxels = make_voxels(other, CPU, light=False)
    assert not voxels.is_floating_point()
    assert torch.equal(voxels.int(), batch["voxels"].int())


@both_norms
@pytest.mark.parametrize("held", [0, 3, 1000])
def test_windows_from_memory_are_the_same(folder, norm, held):
    _, packed = cutters(opened(folder), norm)
    expected = list(batches(packed))
    packed.cache = LRUCache(held * window_bytes(packed.sequences[0], packed.beside) / 2**30)
    for batch, other in zip(expected, batches(packed), strict=True):
        assert_same_but_voxels(batch, other)
        for name in ("spans", "samples"):
            assert torch.equal(batch[name], other[name])
        voxels = [make_voxels(each, CPU, light=norm is LIGHT) for each in (batch, other)]
        assert torch.equal(*voxels)
    assert packed.cache.bytes <= packed.cache.limit_bytes


def test_a_split_is_read_ahead_as_bits(folder):
    _, packed = cutters(opened(folder), LIGHT)
    expected = next(batches(packed))
    notes = Listener()
    config = tiny_config(DATA={"CACHE_SIZE_GB": 0.01, "K": 8})
    assert prepare_cache(packed, config, reporter=notes) == 0
    assert "reading the training split into memory once" in notes.notes[0]
    count = sum(sequence.length for sequence in packed.sequences)
    assert len(packed.cache) == count
    assert packed.cache.bytes <= sum(window_bytes(s, 0.25) * s.length for s in packed.sequences)
    assert torch.equal(next(batches(packed))["spikes"], expected["spikes"])


def test_a_sample_that_windows_share_is_in_a_batch_once(folder):
    _, packed = cutters(opened(folder, names="long"), LIGHT)
    batch = collate([packed.sample(0, 0)])
    # Windows of 33 samples, 16 apart; 8 are known after the third, and none before the first.
    assert len(batch["spikes"]) == 33 + 2 * 16 + 8 + 1
    assert batch["spans"][0].tolist() == [[0, 0, 41], [8, 16, 57], [24, 32, 73]]


def test_large_arrays_of_a_batch_fit_into_the_memory_that_is_set_aside(folder):
    for norm in (LIGHT, COUNTS):
        _, packed = cutters(opened(folder), norm)
        room = batch_bytes(packed, 4)
        for batch in batches(packed, 12):
            assert sum(batch[n].numpy().nbytes for n in ("blur", "sharp", "spikes")) <= room


@pytest.mark.parametrize(
    ("known", "parts", "spans"),
    [
        ([(0, 2, 6), (4, 5, 9)], [6, 3], [(0, 2, 6), (4, 5, 9)]),
        ([(10, 10, 14), (20, 21, 23)], [4, 3], [(0, 0, 4), (4, 5, 7)]),
        ([(0, 0, 9), (2, 3, 5), (7, 7, 12)], [9, 3], [(0, 0, 9), (2, 3, 5), (7, 7, 12)]),
        ([(5, 6, 8), (0, 1, 3), (2, 2, 4)], [3, 3, 1], [(0, 1, 3), (3, 4, 6), (5, 5, 7)]),
        ([(3, 3, 5), (5, 5, 8)], [2, 3], [(0, 0, 2), (2, 2, 5)]),
    ],
    ids=["overlapping", "apart", "one within another", "out of order", "adjoining"],
)
def test_windows_are_joined_by_the_samples_that_they_share(known, parts, spans):
    stream = np.random.default_rng(0).integers(0, 256, (30, 2, 1)).astype(np.uint8)
    windows = [stream[first:stop] for first, _, stop in known]
    found, where = join([KnownSamples(*each) for each in known], windows)
    assert [len(part) for part in found] == parts
    assert where.tolist() == [list(span) for span in spans]
    whole = np.concatenate(found)
    for (first, _, stop), window in zip(where, windows, strict=True):
        np.testing.assert_array_equal(whole[first:stop], window)


def load(samples: ClipSamples, workers: int, first: int = 0):
    plan = StepPlan(samples.index, 2, 2, seed=4)
    names = ("blur", "sharp", "spans", "samples")
    with open_loader(samples, plan, first, 6, workers=workers, pin=False) as steps:
        return [
            [[b[n].clone() for n in names] + [make_voxels(b, CPU, light=True)] for b in step]
            for step in steps
        ]


def test_a_loader_may_begin_at_any_step(folder):
    _, packed = cutters(opened(folder), LIGHT)
    everything = load(packed, 0)
    assert_equal(load(packed, 0, 4), everything[4:])


@pytest.mark.slow
def test_loading_processes_change_no_batch(folder):
    _, packed = cutters(opened(folder), LIGHT)
    everything = load(packed, 0)
    assert_equal(load(packed, 2), everything)
    assert_equal(load(packed, 1, 3), everything[3:])


def assert_equal(found, expected) -> None:
    assert len(found) == len(expected)
    for step, other in zip(found, expected, strict=True):
        for tensors, others in zip(step, other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


def config_for(norm: NormConfig, where: object, **train: object):
    options = {"K": 8, "CLIP_LEN": 3, "CROP_SIZE": 16, "NORM": {"MODE": norm.MODE}}
    augment = {"THRESHOLD": 3, "NOISE": 0.1, "THIN": 0.3}
    options |= {"SPIKES_ON_DEVICE": where, "SPIKE_AUGMENT": augment}
    return tiny_config(DATA=options, MAX_STEPS=4, SAVE_INTERVAL=2, VAL_INTERVAL=2, **train)


def session_of(folder: Path, config, run: Path, *, resume: bool = False) -> Session:
    torch.manual_seed(0)
    parts = [Part("long", 1, 2, 1), Part("short", 3, 2, 1)]
    splits = Splits(*(opened(folder, split) for split in ("train", "val")), parts)
    state = read_resumable(run, config) if resume else None
    group, objective = Group(0, 1, CPU), Objective(config.LOSS)
    return Session(config, group, objective, TinyNetwork(8), splits, run=run, state=state)


@both_norms
def test_a_run_has_the_same_weights_and_scores_and_may_go_on_the_other_way(folder, tmp_path, norm):
    states, scores = [], []
    for name, ways in {"a": [(False, 4)], "b": [(True, 4)], "c": [(True, 2), (False, 4)]}.items():
        run = tmp_path / name
        for where, steps in ways:
            config = config_for(norm, where)
            resumed = steps == 4 and len(ways) > 1
            stopped = StopAt(2) if steps == 2 else Listener()
            session = session_of(folder, config, run, resume=resumed)
            assert session.packed is where
            scores.append(fit(session, reporter=stopped).best_psnr)
        states.append(read_checkpoint(checkpoint_path(run, "last"))["model"])
    assert scores[0] == scores[1] == scores[-1]
    for other in states[1:]:
        assert all(torch.equal(states[0][name], other[name]) for name in states[0])


class StopAt(Listener):
    def __init__(self, step: int) -> None:
        def stop(done: int, total: int, note: str) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGTERM)

        super().__init__(stop)


def test_counts_are_refused_by_name_where_spikes_are_asked_for(folder, tmp_path):
    config = config_for(LIGHT, True)
    training, validation = (opened(folder, split, "counts long") for split in ("train", "val"))
    with pytest.raises(SampleError, match=r"train/a/one: DATA.SPIKES_ON_DEVICE: .* counts only"):
        Session(
            config,
            Group(0, 1, CPU),
            Objective(config.LOSS),
            TinyNetwork(8),
            (training, validation),
            run=tmp_path,
        )


@pytest.mark.parametrize(
    ("where", "device", "names", "packed", "why"),
    [
        ("auto", "cpu", "long", False, None),
        ("auto", "cuda", "long", True, None),
        ("auto", "cuda", "long counts", False, "train/a/one has counts only"),
        (False, "cuda", "counts", False, None),
        (True, "cpu", "long", True, None),
    ],
)
def test_spikes_go_to_a_gpu_unless_a_sequence_has_none(folder, where, device, names, packed, why):
    config = config_for(LIGHT, where)
    splits = Splits(*(opened(folder, split, names) for split in ("train", "val")))
    found, note = splits.packs(config, torch.device(device))
    assert found is packed
    assert note == why or note.endswith(f"loading processes make the GPU's voxels, since {why}")


@pytest.mark.parametrize(("bins", "packed"), [(8, True), (4, False)])
def test_bits_go_to_a_gpu_only_if_they_are_fewer_bytes_than_counts(folder, bins, packed):
    sequences = [s.counted_in(bins) for s in opened(folder, names="long")]  # 33 samples
    splits, gpu = Splits(sequences, sequences), torch.device("cuda")
    found, note = splits.packs(config_for(COUNTS, "auto"), gpu)
    assert (found, note is None) == (packed, packed)
    for norm, where in ((COUNTS, True), (LIGHT, "auto")):
        assert splits.packs(config_for(norm, where), gpu) == (True, None)


def test_a_session_reports_why_a_gpu_is_given_no_spikes(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(Splits, "packs", lambda *_: (False, "a reason"))
    listener = Listener()
    config = load_config(
        "configs/deblur/quickstart.yaml", [*SMALL, f"DATA.ROOT={folder / 'long.zarr'}"]
    )
    Session.open(config, Group(0, 1, CPU), run=tmp_path, reporter=listener)
    assert "a reason" in listener.notes
