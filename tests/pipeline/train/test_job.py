"""A whole run: what it learns, writes and refuses."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import CPU, assert_same_state, run_fit, sets, small_config
from training_sets import Listener, MemorySequence, TinyNetwork, make_store, tiny_config

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.train.clock import STEP_PARTS
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples, SampleError
from spikedeblur.pipeline.train.data.splits import require_usable
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.objective import Objective, to_inputs
from spikedeblur.pipeline.train.run import wandb as wandb_run
from spikedeblur.pipeline.train.run.runs import RunFolderError, read_metrics
from spikedeblur.pipeline.weights.checkpoint import load_run, read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path


def test_metrics_say_what_happened(undisturbed):
    lines = read_metrics(undisturbed)
    training = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "val"]
    assert [line["step"] for line in training] == [5, 10, 12]
    assert [line["step"] for line in validation] == [0, 4, 8, 12]
    assert all(0 <= line["data_wait"] <= 1 for line in training)
    assert training[-1]["lr"] == pytest.approx(1e-7)
    assert all(line["windows"] == 3 for line in validation)
    best = max(validation, key=lambda line: line["psnr"])
    assert read_checkpoint(checkpoint_path(undisturbed, "best"))["step"] == best["step"]
    assert list(undisturbed.glob("events.out.tfevents.*"))
    picture = np.asarray(Image.open(undisturbed / "samples" / "step_0000004.png"))
    assert picture.shape == (3 * (2 * 18 + 2 * 24) + 2 * 4, 3 * 64 + 2 * 4, 3)
    for window in range(3):
        row = picture[window * (84 + 4) :][36:84]  # below a title and captions
        blur = MemorySequence("val/d", 3).blur(window, window + 1)[0].repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(row[:, :64], blur)
        np.testing.assert_array_equal(row[:, 136:], 255 - blur)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    losses, weights = [], []
    for n, (batch, accumulation) in enumerate([(1, 6), (6, 1), (2, 3)]):
        config = tiny_config(
            BATCH_SIZE=batch, GRADIENT_ACCUMULATION_STEPS=accumulation, LOG_INTERVAL=1
        )
        run_fit(tmp_path / str(n), config, dropout=0)
        lines = read_metrics(tmp_path / str(n))
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
        weights.append(read_checkpoint(checkpoint_path(tmp_path / str(n), "last"))["model"])
    assert len(losses[0]) == 12
    for other in (1, 2):
        np.testing.assert_allclose(losses[other], losses[0], rtol=1e-5)
        for name, value in weights[0].items():
            torch.testing.assert_close(weights[other][name], value, rtol=1e-3, atol=1e-5)


def test_the_first_step_moves_along_the_mean_gradient_of_all_its_samples(tmp_path):
    """AdamW's first moment after one step is (1 - beta1) times the clipped gradient."""
    config = tiny_config(MAX_STEPS=1, GRAD_CLIP=None, BATCH_SIZE=3, SEED=2)
    torch.manual_seed(2)
    model = TinyNetwork(dropout=0)
    reference = TinyNetwork(dropout=0)
    reference.load_state_dict(model.state_dict())
    run_fit(tmp_path, config, model=model)
    from spikedeblur.pipeline.train.data.order import StepPlan

    training, _ = sets()
    index = ClipIndex.every_start([4, 5, 1], 2)
    samples = ClipSamples(training, index, crop_size=16, augment=True, seed=2)
    step = StepPlan(index, 3, 2, seed=2).batches(0, 1)
    clips = [int(c) for batch in step for c in batch.clips]
    for clip in clips:
        inputs = to_inputs(collate([samples.sample(0, clip)]), CPU, config.DATA.NORM)
        loss = Objective(config.LOSS)(reference(inputs.blur, inputs.voxels), inputs.sharp)
        (loss / len(clips)).backward()
    moments = read_checkpoint(checkpoint_path(tmp_path, "last"))["optimizer"]["state"]
    for n, parameter in enumerate(reference.parameters()):
        torch.testing.assert_close(moments[n]["exp_avg"] * 10, parameter.grad, rtol=1e-4, atol=1e-7)


def test_a_profile_accounts_for_every_second(tmp_path, undisturbed):
    began = time.perf_counter()
    found = run_fit(tmp_path, tiny_config(), profile=True).profile
    elapsed = time.perf_counter() - began
    assert found.steps == 12
    assert sum(found.seconds.values()) == pytest.approx(found.wall_seconds, abs=1e-6)
    assert 0.5 * elapsed < found.wall_seconds < elapsed
    assert all(seconds > 0 for seconds in found.seconds.values()), found
    parts = {f"seconds_{part}" for part in STEP_PARTS}
    for line in read_metrics(tmp_path):
        if line["kind"] == "train":
            assert sum(line.pop(part) for part in parts) == pytest.approx(line["seconds"])
    state = read_checkpoint(checkpoint_path(tmp_path, "last"))
    assert_same_state(state, read_checkpoint(checkpoint_path(undisturbed, "last")))


def test_training_learns(tmp_path):
    """Sharp is 255 - blur here, which a linear network can do."""
    config = tiny_config(MAX_STEPS=150, EMA_DECAY=0.95, AMP="bf16", VAL_INTERVAL=150)
    summary = run_fit(tmp_path, config, model=TinyNetwork(dropout=0))
    assert summary.best_psnr > summary.psnr_blur + 10


@pytest.mark.parametrize(
    ("sequence", "norm", "message"),
    [
        (MemorySequence(gain=None), {"MODE": "rate"}, "needs the gain"),
        (MemorySequence(voxel_dtype="float32"), {"MODE": "relative"}, "log1p is done already"),
        (MemorySequence(voxel_dtype="float32"), {"MEAN": 1.0}, "log1p is done already"),
    ],
)
def test_data_that_can_not_be_normalised_is_refused(sequence, norm, message):
    data = tiny_config(DATA={"NORM": norm}).DATA
    with pytest.raises(SampleError, match=message):
        require_usable([sequence], data.NORM)


def test_the_whole_run_on_a_store(tmp_path, small_store):
    config = small_config(small_store)
    listener = Listener()
    summary = train(config, tmp_path / "run", reporter=listener)
    assert summary.step == summary.total_steps == 3
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "samples"} <= names
    assert load_config(tmp_path / "run" / "config.yaml") == config
    model, _ = load_run(tmp_path / "run")
    assert model(torch.rand(1, 2, 3, 32, 32), torch.rand(1, 2, 8, 16, 16)).shape[1] == 2
    lines = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "train"]
    assert all(line["cache_hits"] > 0 and line["cache_misses"] == 0 for line in lines)

    with pytest.raises(RunFolderError, match="holds a run already"):
        train(config, tmp_path / "run")
    again = train(config, tmp_path / "run", resume=True, reporter=listener)
    assert again.was_finished
    assert "this run is finished" in listener.notes[-1]

    other = make_store(tmp_path / "other", (32, 64))
    with pytest.raises(RunFolderError, match="training split is not the one"):
        train(small_config(other), tmp_path / "run", resume=True)
    gone = train(small_config(tmp_path / "gone"), tmp_path / "run", resume=True, reporter=listener)
    assert gone.was_finished
    assert "can't be compared" in listener.notes[-2]


def test_training_without_spikes_takes_the_same_road(tmp_path, small_store):
    config = small_config(small_store, "MODEL.USE_SPIKE=false", "MODEL.SPIKE_SKIP=false")
    assert train(config, tmp_path).step == 3


def test_missing_vgg_weights_are_told_before_any_data_is_looked_for(tmp_path):
    config = small_config(
        Path("no/such/store"),
        "LOSS.VGG_PERCEPTUAL.WEIGHT=0.1",
        "LOSS.VGG_PERCEPTUAL.WEIGHTS=no/such/vgg.pth",
    )
    with pytest.raises(SpikeDeblurError, match="VGG_PERCEPTUAL"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_split_can_not_be_both(tmp_path, small_store):
    config = small_config(small_store, "DATA.VAL_SPLIT=train")
    with pytest.raises(SampleError, match="another split"):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_metrics_go_to_weights_and_biases_too_and_stay_here_offline(
    tmp_path, small_store, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(small_config(small_store, "TRAIN.WANDB=trials"), tmp_path / "run")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    for name in (b"train/loss", b"val/psnr_blur", b"trials", b"val/sample"):
        assert name in content
    train(small_config(small_store, "TRAIN.WANDB=trials"), tmp_path / "run", overwrite=True)
    begun = {path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")}
    assert len(begun) == 2  # its steps begin at 0 again, which one run on W&B can't have twice


def test_weights_and_biases_are_refused_before_the_run_where_they_are_missing(
    tmp_path, small_store, monkeypatch
):
    monkeypatch.setattr(wandb_run, "find_spec", lambda name: None)
    with pytest.raises(SpikeDeblurError, match=r"spikedeblur\[wandb\]"):
        train(small_config(small_store, "TRAIN.WANDB=trials"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
