"""`DATA.INSTANTS`: samples that ask for the sharp frames of one instant of the exposure."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from training_sets import SMALL, Listener, MemorySequence, TinyNetwork, tiny_config

from spikedeblur.configs.loading import ConfigError, load_config
from spikedeblur.configs.schema import NormConfig
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.methods.contract import restored_instants
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.sequences.light import beside_exposure, seen_by
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.data.cache import LRUCache
from spikedeblur.pipeline.train.data.loader import collate, open_loader, prepare_cache
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples, SampleError
from spikedeblur.pipeline.train.data.splits import Splits
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import fit, train
from spikedeblur.pipeline.train.objective import Objective, to_inputs
from spikedeblur.pipeline.train.run.folder import read_resumable
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

CPU = torch.device("cpu")
TIMES = (-0.25, 0.0, 0.25)


@dataclass
class Kept(MemorySequence):
    """Its sharp frames at an instant are those of the middle, less 1 for each instant."""

    instants: tuple[float, ...] = TIMES

    def sharp_at(self, instant, start, stop, rows=None, columns=None) -> np.ndarray:
        return self.sharp(start, stop, rows, columns) - np.uint8(instant + 1)


def samples_of(*sequences: Kept, clip_len: int = 2, **options) -> ClipSamples:
    index = ClipIndex.every_start([s.length for s in sequences], clip_len)
    options = {"crop_size": 8, "augment": True, "instants": True} | options
    return ClipSamples(sequences, index, **options)


def test_all_windows_of_a_sample_have_the_sharp_frames_of_the_instant_that_it_names() -> None:
    samples = samples_of(Kept(), Kept("train/bb", instants=(-0.2, 0.2)))
    drawn: dict[str, Counter[float]] = {"train/a": Counter(), "train/bb": Counter()}
    for epoch, clip in itertools.product(range(100), range(len(samples.index))):
        sample = samples.sample(epoch, clip)
        numbers = dict(zip(TIMES, (1, 2, 3), strict=True))
        if sample["seq"] == "train/bb":  # which has the frames of the middle besides
            numbers = {-0.2: 1, 0.2: 2, 0.0: 0}
        less = numbers[sample["instant"]]
        np.testing.assert_array_equal(sample["sharp"], 255 - sample["blur"] - np.uint8(less))
        drawn[sample["seq"]][sample["instant"]] += 1
    for counts in drawn.values():
        assert len(counts) == 3
        assert min(counts.values()) > 70  # of 100 expected


def test_nothing_but_the_sharp_frames_differs_from_samples_of_the_middle() -> None:
    without = samples_of(Kept(), instants=False)
    for epoch, clip in itertools.product(range(5), range(3)):
        expected, sample = without.sample(epoch, clip), samples_of(Kept()).sample(epoch, clip)
        assert sample.keys() - expected.keys() == {"instant"}
        for name in ("blur", "voxels"):
            np.testing.assert_array_equal(sample[name], expected[name])
        assert sample["changes"] == expected["changes"]


@pytest.mark.parametrize("held", [0, 2, 100])
def test_a_cache_holds_all_instants_and_changes_no_sample(held: int) -> None:
    plain, cached = samples_of(Kept()), samples_of(Kept())
    size = cached.window_bytes(0)
    assert size == sum(each.nbytes for each in cached.read(0, 0, 1))
    cached.cache = LRUCache(held * size / 2**30)
    for epoch, clip in itertools.product(range(5), range(3)):
        expected, found = plain.sample(epoch, clip), cached.sample(epoch, clip)
        for name in ("blur", "sharp", "voxels"):
            np.testing.assert_array_equal(found[name], expected[name])
        assert found["instant"] == expected["instant"]
    assert len(cached.cache) == min(held, 4)


def test_loading_processes_draw_as_the_training_process_does() -> None:
    plan = StepPlan(samples_of(Kept()).index, batch_size=2, seed=3)

    def batches(workers: int):
        with open_loader(samples_of(Kept()), plan, 1, 5, workers=workers, pin=False) as steps:
            for step in steps:
                for batch in step:
                    yield batch["instant"], batch["sharp"].clone()

    pairs = list(zip(batches(0), batches(2), strict=True))
    assert len({time for (times, _), _ in pairs for time in times}) > 1
    for (times, sharp), (others, again) in pairs:
        assert times == others
        assert torch.equal(sharp, again)


class Asked(TinyNetwork):
    """Its frames are brighter, the later they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[float]] = []

    def forward(self, rgb, voxels, instants=()):
        self.asked.append(list(instants))
        later = torch.tensor([*instants] or [0.0] * len(rgb))
        return super().forward(rgb, voxels) + later[:, None, None, None, None]


def test_a_run_that_was_stopped_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    def stop_after(step: int) -> Listener:
        return Listener(lambda done, *_: done == step and os.kill(os.getpid(), signal.SIGTERM))

    def run(folder: Path, stop: int = -1, *, resume: bool = False) -> Asked:
        config = tiny_config(DATA={"INSTANTS": True})
        torch.manual_seed(0)
        model = Asked()
        splits = Splits([Kept(), Kept("train/bb", 5)], [MemorySequence("val/d", 3)])
        session = Session(
            config,
            Group(0, 1, CPU),
            Objective(config.LOSS),
            model,
            splits,
            run=folder,
            state=read_resumable(folder, config) if resume else None,
        )
        fit(session, reporter=stop_after(stop))
        return model

    # Such configurations need a network that follows motion, for which this one stands.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikedeblur.configs.schema.Config.misfits", lambda self: iter(()))
        whole = run(tmp_path / "whole")
        parts = [run(tmp_path / "parts", stop, resume=stop < 0) for stop in (5, -1)]
    asked = [instants for instants in whole.asked if instants]  # validation asks for none
    assert len({time for instants in asked for time in instants}) == 3
    assert all(any(part.asked) for part in parts)
    assert asked == [i for part in parts for i in part.asked if i]
    states = (
        read_checkpoint(checkpoint_path(tmp_path / name, "last")) for name in ("whole", "parts")
    )
    for weights, again in zip(*(state["model"].values() for state in states), strict=True):
        assert torch.equal(weights, again)


def test_a_store_without_instants_is_refused_with_what_to_type() -> None:
    with pytest.raises(SampleError, match=r"^train/b: DATA.INSTANTS: .*simulate --instants 7"):
        samples_of(Kept(), Kept("train/b", instants=()))


def test_a_network_that_does_not_follow_motion_can_not_be_asked() -> None:
    with pytest.raises(ConfigError, match=r"DATA.INSTANTS needs MODEL.USE_SPIKE and MODEL.SPIKE_M"):
        load_config(
            "configs/deblur/quickstart.yaml", ("DATA.INSTANTS=true", "MODEL.SPIKE_MOTION=false")
        )


def recorded(folder: Path, rig: Rig) -> Path:
    """Return a store of two scenes to train on and one to validate on, at three instants."""
    for split, scenes in (("train", 2), ("val", 1)):
        simulate(folder / "frames", scene_clips(split, scenes, (32, 48), 65), rig, workers=1)
    log, manifest = folder / "align.txt", folder / "align.json"
    options = AlignOptions(verify=False, instants=3)
    align(folder / "frames", "x4k1000fps", log=log, manifest=manifest, options=options, workers=1)
    voxelize_manifest(manifest, folder / "spikes.zarr", VoxelizeOptions(bins=8), Workers(count=1))
    return folder / "spikes.zarr"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("instants"), Rig(instants=3))


def test_packed_spikes_of_a_store_come_with_the_frames_of_the_instant(store: Path) -> None:
    norm = NormConfig(MODE="relative")
    sequences = open_store(store, "train")
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    how = {"crop_size": 16, "augment": True, "instants": True}
    light = ClipSamples(seen_by(norm, sequences), index, **how)
    packed = ClipSamples(sequences, index, beside=beside_exposure(norm), **how)
    config = tiny_config(DATA={"CACHE_SIZE_GB": 1})
    assert prepare_cache(packed, config) == 0  # it fits, with all instants
    drawn = set()
    for epoch in range(6):
        batch, other = (
            collate([samples.sample(epoch, clip) for clip in range(2)])
            for samples in (light, packed)
        )
        inputs, others = (to_inputs(each, CPU, norm) for each in (batch, other))
        assert batch["instant"] == other["instant"]
        drawn |= set(batch["instant"])
        for name in ("blur", "voxels", "sharp"):
            assert torch.equal(getattr(inputs, name), getattr(others, name))
    assert drawn == set(sequences[0].instants)


def test_spikes_of_another_size_are_resampled_and_sharp_frames_cropped_as_ever(tmp_path) -> None:
    rig = Rig(instants=3, spike_size=(20, 30))
    sequences = open_store(recorded(tmp_path, rig), "train")
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    seen = seen_by(NormConfig(MODE="relative"), sequences)
    samples = ClipSamples(seen, index, crop_size=16, instants=True)
    for number, time in enumerate(sequences[0].instants):
        sample = samples.cut(0, (16, 32), (8, 24), number)
        expected = sequences[0].sharp_at(number, 0, 2)[:, 16:32, 8:24]
        assert sample["instant"] == time
        np.testing.assert_array_equal(sample["sharp"], expected.transpose(0, 3, 1, 2))


def test_a_trained_network_is_asked_for_instants_from_then_on(store: Path, tmp_path: Path) -> None:
    overrides = (*SMALL, f"DATA.ROOT={store}", "TRAIN.MAX_STEPS=2", "DATA.INSTANTS=true")
    config = load_config("configs/deblur/quickstart.yaml", overrides)
    train(config, tmp_path / "run")
    assert all(
        np.isfinite(line["loss"]) for line in read_metrics(tmp_path / "run") if "loss" in line
    )
    model = ModelOptions().open(tmp_path / "run")
    assert model.asked_at_instants
    windows = open_store(store, "val")[0]
    times, wanted = windows.instants, [[True] * 3] * windows.length
    assert len(list(restored_instants(model, windows, times, wanted))) == 3 * windows.length
