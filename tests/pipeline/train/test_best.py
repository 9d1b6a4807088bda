"""What validation decides: the best checkpoint, an early end, never worse than the start."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import CPU, assert_same_state, run_fit
from training_sets import Listener, MemorySequence, TinyNetwork, tiny_config

from spikedeblur.configs import load_config
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.sequences.light import seen_by
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train import job
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.objective import psnr, to_inputs
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.validation import Validator, to_8_bits
from spikedeblur.pipeline.trained import load_trained
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path


def test_a_run_that_gets_no_better_ends_early_and_stays_ended(tmp_path):
    config = tiny_config(
        EARLY_STOP=2, OPTIM={"LR": 1e-30}, SCHEDULER={"MIN_LR": 1e-30}, MAX_STEPS=40
    )
    listener = Listener()
    summary = run_fit(tmp_path, config, reporter=listener)
    interval = config.TRAIN.VAL_INTERVAL
    assert (summary.step, summary.best_step, summary.signal) == (2 * interval, 0, None)
    assert any("ended after step" in note for note in listener.notes)
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 2 * interval
    again = run_fit(tmp_path, config, resume=True)
    assert (again.step, again.signal) == (2 * interval, None)


def test_validating_the_start_changes_no_step(tmp_path, undisturbed, monkeypatch):
    class Late(Validator):
        @property
        def is_due(self) -> bool:
            return super().is_due and self._at.step > 0

    monkeypatch.setattr(job, "Validator", Late)
    run_fit(tmp_path, tiny_config())
    assert_same_state(
        read_checkpoint(checkpoint_path(tmp_path, "last")),
        read_checkpoint(checkpoint_path(undisturbed, "last")),
    )


def test_a_run_that_harms_its_model_keeps_the_one_that_it_began_with(tmp_path):
    model = TinyNetwork(dropout=0)
    with torch.no_grad():  # sharp is 255 - blur
        for parameter in model.parameters():
            parameter.zero_()
        for channel in range(3):
            model.frames.weight[channel, channel, 1, 1] = 1.0
            model.out.weight[channel, channel, 0, 0] = -1.0
        model.out.bias.fill_(1.0)
    before = copy.deepcopy(model.state_dict())
    config = tiny_config(OPTIM={"LR": 1.0}, SCHEDULER={"WARMUP_STEPS": 0})
    listener = Listener()
    summary = run_fit(tmp_path, config, model=model, reporter=listener)
    assert (summary.step, summary.best_step) == (12, 0)
    assert "the best checkpoint is the start" in listener.notes[-1]
    best = read_checkpoint(checkpoint_path(tmp_path, "best"))
    assert_same_state(dict(best["ema"]), dict(before))
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "val"]
    found = {line["step"]: line["psnr"] for line in lines}
    assert found[0] == best["best_psnr"] == summary.best_psnr > found[12] + 10


def test_validation_psnr_of_the_blur_is_that_of_its_definition(undisturbed):
    sequence = MemorySequence("val/d", 3)
    expected = []
    for n in range(3):
        error = sequence.blur(n, n + 1) / 255 - sequence.sharp(n, n + 1) / 255
        expected.append(-10 * np.log10((error**2).mean()))
    line = next(line for line in read_metrics(undisturbed) if line["kind"] == "val")
    assert line["psnr_blur"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_without_averaging_the_weights_themselves_are_validated(tmp_path):
    run_fit(tmp_path, tiny_config(EMA_DECAY=None, MAX_STEPS=4))
    state = read_checkpoint(checkpoint_path(tmp_path, "last"))
    assert state["ema"] is None
    assert state["validated_step"] == 4


def best_validation_and_path(run: Path, store: Path) -> tuple[float, float]:
    """Return the PSNR of a run's product and of `path`, on the run's validation windows."""
    model = load_trained(run)[0].eval()
    errors: dict[str, list[float]] = {"model": [], "path": []}
    config = load_config(run / "config.yaml")
    for sequence in seen_by(config.DATA.NORM, open_store(store, "val")):
        clip = ClipSamples([sequence], ClipIndex.each_window_once([sequence.length], 3))
        for n in range(len(clip.index)):
            inputs = to_inputs(collate([clip.cut(n, (0, 64), (0, 64))]), CPU, config.DATA.NORM)
            with torch.no_grad():
                restored = {"model": model(inputs.blur, inputs.voxels)}
                restored["path"] = model.follow(inputs.blur, inputs.voxels)[:, :, :3]
            for name, frames in restored.items():
                errors[name] += psnr(to_8_bits(frames)[0], inputs.sharp[0]).tolist()
    return float(np.mean(errors["model"])), float(np.mean(errors["path"]))


@pytest.mark.slow
def test_an_epoch_on_fifteen_short_sequences_is_no_worse_than_path(tmp_path):
    for split, scenes in (("train", 15), ("val", 2)):
        clips = scene_clips(split, scenes, (64, 64), 65)
        simulate(tmp_path / "frames", clips, Rig(), workers=1)
    align(
        tmp_path / "frames",
        "x4k1000fps",
        manifest=tmp_path / "m.json",
        log=tmp_path / "m.txt",
        options=AlignOptions(verify=False),
        workers=1,
    )
    voxelize_manifest(tmp_path / "m.json", tmp_path / "s.zarr", VoxelizeOptions(), Workers(count=1))
    keys = [f"DATA.ROOT={tmp_path / 's.zarr'}", "TRAIN.MAX_STEPS=null", "TRAIN.EPOCHS=1"]
    config = load_config("configs/deblur/quickstart.yaml", keys)
    summary = train(config, tmp_path / "run")
    assert summary.step == 4
    model, path = best_validation_and_path(tmp_path / "run", tmp_path / "s.zarr")
    assert summary.best_psnr == pytest.approx(model, abs=0.05)
    assert model >= path > summary.psnr_blur + 3
    validations = [line["psnr"] for line in read_metrics(tmp_path / "run") if line["kind"] == "val"]
    assert validations[0] == pytest.approx(path, abs=0.05)
    assert validations[-1] > path - 0.5  # nor do the last weights lose what they began with
