from __future__ import annotations

import copy
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_sets import (
    SMALL,
    Listener,
    MemorySequence,
    TinyNetwork,
    UnreadableSequence,
    make_store,
    tiny_config,
)

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.host.device_memory import NotEnoughMemoryError
from spikedeblur.pipeline.sequences.light import seen_by
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train import job, memory_advice
from spikedeblur.pipeline.train.clock import STEP_PARTS
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples, SampleError
from spikedeblur.pipeline.train.data.splits import Part, Splits, require_usable
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import fit, train
from spikedeblur.pipeline.train.objective import Objective, psnr, to_inputs
from spikedeblur.pipeline.train.run import wandb as wandb_run
from spikedeblur.pipeline.train.run.folder import read_resumable
from spikedeblur.pipeline.train.run.runs import RunFolderError, read_metrics
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.train.step import NonFiniteError
from spikedeblur.pipeline.train.validation import Validator, to_8_bits
from spikedeblur.pipeline.trained import load_trained
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.checkpoint import load_run, read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

CPU = torch.device("cpu")
MEASURED = {"data_wait", "samples_per_s", "seconds", "cache_hits", "cache_misses", "peak_memory"}
MEASURED |= {"tflops", "peak_share"}
MEASURED |= {f"seconds_{part}" for part in (*STEP_PARTS, "saving")}


def sets():
    training = [MemorySequence("train/a"), MemorySequence("train/bb", 5), MemorySequence("c", 1)]
    return training, [MemorySequence("val/d", 3)]


def run_fit(run: Path, config, *, model=None, dropout=0.3, resume=False, data=None, **options):
    if model is None:
        torch.manual_seed(config.TRAIN.SEED)
        model = TinyNetwork(dropout=dropout)
    state = read_resumable(run, config) if resume else None
    group, objective = Group(0, 1, CPU), Objective(config.LOSS)
    session = Session(config, group, objective, model, data or sets(), run=run, state=state)
    return fit(session, **options)


def signal_at(step: int) -> Listener:
    def on_progress(done: int, total: int, note: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return Listener(on_progress)


def assert_same_state(found, expected, at=""):
    assert type(found) is type(expected), at
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), at
        for key in expected:
            assert_same_state(found[key], expected[key], f"{at}.{key}")
    elif isinstance(expected, (list, tuple)):
        for n, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same_state(a, b, f"{at}[{n}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), at
    else:
        assert found == expected, at


def metrics_not_measured(run: Path):
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in read_metrics(run)]


def test_weights_that_a_run_began_with_are_in_a_checkpoint_before_its_first_step(tmp_path):
    def kill(done, total, note):
        if done:
            raise KeyboardInterrupt

    group, objective = Group(0, 1, CPU), Objective(tiny_config().LOSS)
    for init, kept in ((None, False), ({"name": "small"}, True)):
        run = tmp_path / str(kept)
        session = Session(tiny_config(), group, objective, TinyNetwork(), sets(), run=run)
        session.init = init
        began = {name: value.clone() for name, value in session.model.state_dict().items()}
        with pytest.raises(KeyboardInterrupt):
            fit(session, reporter=Listener(kill))
        state = read_resumable(run, tiny_config())
        assert (state is not None) == kept
    assert state["step"] == 0
    assert_same_state(dict(state["model"]), began)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    summary = run_fit(run, tiny_config())
    assert summary.step == 12
    assert summary.signal is None
    return run


@pytest.mark.parametrize("stops", [(1,), (4,), (5,), (6, 7), (3, 9, 11), (12,)])
def test_a_stopped_and_continued_run_equals_an_undisturbed_one(tmp_path, undisturbed, stops):
    config = tiny_config()
    for n, stop in enumerate(stops):
        summary = run_fit(tmp_path, config, resume=n > 0, reporter=signal_at(stop))
        assert (summary.step, summary.signal) == (stop, signal.SIGTERM)
        assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == stop
    summary = run_fit(tmp_path, config, resume=True)
    assert (summary.step, summary.signal) == (12, None)
    for which in ("last", "best"):
        assert_same_state(
            read_checkpoint(checkpoint_path(tmp_path, which)),
            read_checkpoint(checkpoint_path(undisturbed, which)),
        )
    assert metrics_not_measured(tmp_path) == metrics_not_measured(undisturbed)


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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("how", ["signal", "kill"])
def test_a_run_that_ends_about_its_first_validation_goes_on_as_if_it_had_not(
    tmp_path, undisturbed, monkeypatch, moment, how
):
    def end() -> None:
        if how == "kill":
            raise Killed
        os.kill(os.getpid(), signal.SIGTERM)

    class Restless(Validator):
        def validate(self, stop, records, checkpoints):
            if moment == "before":
                end()
            whole = super().validate(stop, records, checkpoints)
            if moment == "after":
                end()
            return whole

        def _restore_all(self, stop):
            if moment == "during":
                end()
            return super()._restore_all(stop)

    with monkeypatch.context() as patched:
        patched.setattr(job, "Validator", Restless)
        with pytest.raises(Killed) if how == "kill" else nullcontext():
            summary = run_fit(tmp_path, tiny_config())
            steps, validated = (1, 0) if moment == "after" else (0, -1)
            assert (summary.step, summary.signal) == (steps, signal.SIGTERM)
            found = read_checkpoint(checkpoint_path(tmp_path, "last"))
            assert (found["step"], found["validated_step"]) == (steps, validated)
    run_fit(tmp_path, tiny_config(), resume=True)
    for which in ("last", "best"):
        assert_same_state(
            read_checkpoint(checkpoint_path(tmp_path, which)),
            read_checkpoint(checkpoint_path(undisturbed, which)),
        )
    assert metrics_not_measured(tmp_path) == metrics_not_measured(undisturbed)


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


def test_a_run_killed_between_checkpoints_repeats_the_lost_steps(tmp_path, undisturbed):
    def kill(done, total, note):
        if done == 10:
            raise Killed

    with pytest.raises(Killed):
        run_fit(tmp_path, tiny_config(), reporter=Listener(kill))
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 6
    run_fit(tmp_path, tiny_config(), resume=True)
    assert_same_state(
        read_checkpoint(checkpoint_path(tmp_path, "last")),
        read_checkpoint(checkpoint_path(undisturbed, "last")),
    )
    assert metrics_not_measured(tmp_path) == metrics_not_measured(undisturbed)


def test_the_undisturbed_run_crossed_epochs_and_used_dropout(undisturbed):
    state = read_checkpoint(checkpoint_path(undisturbed, "last"))
    assert state["epoch"] >= 3
    assert TinyNetwork().dropout.p > 0


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run_fit(tmp_path, tiny_config(MAX_STEPS=3), reporter=signal_at(1))
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_sigterm_of_a_cluster_does_not_keep_the_checkpoint_from_being_written(tmp_path):
    def twice(step: int, total: int, note: str) -> None:
        signal_at(4).progress(step, total, note)
        signal_at(4).progress(step, total, note)

    summary = run_fit(tmp_path, tiny_config(), reporter=Listener(twice))
    assert (summary.step, summary.signal) == (4, signal.SIGTERM)
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 4


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


def test_validation_psnr_of_the_blur_is_that_of_its_definition(undisturbed):
    sequence = MemorySequence("val/d", 3)
    expected = []
    for n in range(3):
        error = sequence.blur(n, n + 1) / 255 - sequence.sharp(n, n + 1) / 255
        expected.append(-10 * np.log10((error**2).mean()))
    line = next(line for line in read_metrics(undisturbed) if line["kind"] == "val")
    assert line["psnr_blur"] == pytest.approx(np.mean(expected), abs=1e-4)


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


class Breaks(TinyNetwork):
    """Its output is not a number from the fourth step on, in training."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, rgb, voxels):
        self.calls += self.training
        output = super().forward(rgb, voxels)
        return output * float("nan") if self.training and self.calls >= 7 else output


def test_a_loss_that_is_no_number_stops_before_the_weights_change(tmp_path):
    model = Breaks()
    with pytest.raises(NonFiniteError, match=r"step 4: the loss is nan \(samples: .*frames"):
        run_fit(tmp_path, tiny_config(), model=model)
    assert all(torch.isfinite(p).all() for p in model.parameters())


class TooLarge(TinyNetwork):
    """Its second step takes more memory than there is."""

    calls = 0

    def forward(self, rgb, voxels):
        self.calls += self.training
        if self.calls > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().forward(rgb, voxels)


def test_a_step_that_does_not_fit_says_which_setting_helps(tmp_path):
    with pytest.raises(NotEnoughMemoryError, match=r"^step 2: .*TRAIN.BATCH_SIZE=1 with") as raised:
        run_fit(tmp_path, tiny_config(), model=TooLarge())
    assert "The checkpoint of step 1 is written; go on with --resume" in str(raised.value)
    assert "memory_viz" not in str(raised.value)  # there is no GPU
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 1


def test_a_shortage_names_the_snapshot_of_a_gpu_taken_while_the_step_is_still_held(
    tmp_path, monkeypatch
):
    held = []

    def snapshot(path: Path, device: torch.device) -> bool:
        error = sys.exc_info()[1]
        assert isinstance(error, NotEnoughMemoryError)
        assert isinstance(error.__cause__, torch.OutOfMemoryError)
        held.append(error.__cause__.__traceback__)
        return path == tmp_path / "memory_0.pickle"

    monkeypatch.setattr(memory_advice, "write_memory_snapshot", snapshot)
    with pytest.raises(NotEnoughMemoryError, match=rf"held the memory: {tmp_path}/memory_0.pickle"):
        run_fit(tmp_path, tiny_config(), model=TooLarge())
    assert held[0] is not None


def test_an_update_that_was_cut_short_is_no_checkpoint(tmp_path, monkeypatch):
    config = tiny_config(SAVE_INTERVAL=2)
    whole, updates = torch.optim.AdamW.step, []

    def step(self, closure=None):
        updates.append(whole(self))
        if len(updates) == 4:  # the weights are changed already
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(NotEnoughMemoryError, match=r"^step 4: ") as raised:
        run_fit(tmp_path, config)
    assert "is written" not in str(raised.value)
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == 2


class BadGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, rgb, voxels):
        return rgb + torch.sqrt(self.scale.abs())  # finite, but its slope at 0 is not


def test_a_gradient_that_is_no_number_stops_too(tmp_path):
    model = BadGradient()
    with pytest.raises(NonFiniteError, match="step 1: the gradient's norm"):
        run_fit(tmp_path, tiny_config(), model=model)
    assert model.scale.item() == 0


def test_training_learns(tmp_path):
    """Sharp is 255 - blur here, which a linear network can do."""
    config = tiny_config(MAX_STEPS=150, EMA_DECAY=0.95, AMP="bf16", VAL_INTERVAL=150)
    summary = run_fit(tmp_path, config, model=TinyNetwork(dropout=0))
    assert summary.best_psnr > summary.psnr_blur + 10


def test_without_averaging_the_weights_themselves_are_validated(tmp_path):
    run_fit(tmp_path, tiny_config(EMA_DECAY=None, MAX_STEPS=4))
    state = read_checkpoint(checkpoint_path(tmp_path, "last"))
    assert state["ema"] is None
    assert state["validated_step"] == 4


def test_continuing_on_other_data_is_refused(tmp_path):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(2))
    data = ([MemorySequence("train/other", 9)], [MemorySequence("val/d", 3)])
    with pytest.raises(RunFolderError, match="not the one that the run was begun with"):
        run_fit(tmp_path, tiny_config(), resume=True, data=data)


def test_a_run_may_continue_with_the_same_step_dealt_otherwise(tmp_path):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(2))
    assert run_fit(tmp_path, tiny_config(BATCH_SIZE=3), resume=True).step == 12
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["samples_a_step"] == 4


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


def small_config(store: Path, *more: str):
    overrides = (*SMALL, f"DATA.ROOT={store}", "TRAIN.MAX_STEPS=3", *more)
    return load_config("configs/deblur/quickstart.yaml", overrides)


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


def mixture(share: float = 0.75) -> Splits:
    training, validation = sets()
    training += [MemorySequence("train/a", 9), MemorySequence("train/e", 1)]
    validation.append(MemorySequence("val/d", 4, ratio=2))
    parts = [Part("one.zarr", share, 3, 1), Part("two.zarr", 1 - share, 2, 1)]
    return Splits(training, validation, parts)


def test_a_run_on_two_stores_goes_on_as_if_it_had_not_stopped(tmp_path):
    listener = Listener()
    run_fit(tmp_path / "whole", tiny_config(), data=mixture(), reporter=listener)
    for number, stop in enumerate((1, 5, 7)):
        resume = number > 0
        run_fit(
            tmp_path / "run", tiny_config(), data=mixture(), resume=resume, reporter=signal_at(stop)
        )
    run_fit(tmp_path / "run", tiny_config(), data=mixture(), resume=True)
    for which in ("last", "best"):
        assert_same_state(
            *(read_checkpoint(checkpoint_path(tmp_path / r, which)) for r in ("run", "whole"))
        )
    assert metrics_not_measured(tmp_path / "run") == metrics_not_measured(tmp_path / "whole")
    validations = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "val"]
    for line in validations:
        one, two = line["stores"]["one.zarr"], line["stores"]["two.zarr"]
        assert (one["windows"], two["windows"], line["windows"]) == (3, 4, 7)
        for name in ("psnr", "psnr_blur"):
            assert line[name] == pytest.approx((3 * one[name] + 4 * two[name]) / 7)
    assert any("step 4: one.zarr" in note and "two.zarr" in note for note in listener.notes)
    with pytest.raises(RunFolderError, match="weights of stores"):
        run_fit(tmp_path / "run", tiny_config(), data=mixture(0.5), resume=True)


def test_a_step_names_the_store_of_what_it_can_not_read(tmp_path):
    data = mixture()
    broken = UnreadableSequence("train/a", 9)
    data = data._replace(training=[*data.training[:3], broken, *data.training[4:]])
    config = tiny_config(ON_ERROR="skip")
    summary = run_fit(tmp_path, config, data=data)
    assert list(summary.unread) == ["two.zarr:train/a"]


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
def test_workers_change_no_weight_even_when_stopped(tmp_path, small_store):
    states = []
    for workers, stop in ((0, None), (2, None), (2, 2)):
        run = tmp_path / f"{workers}{stop}"
        config = small_config(
            small_store, f"TRAIN.NUM_WORKERS={workers}", "DATA.USE_RAM_CACHE=false"
        )
        if stop:
            assert train(config, run, reporter=signal_at(stop)).step == stop
        train(config, run, resume=bool(stop))
        states.append(read_checkpoint(checkpoint_path(run, "last")) | {"config": ""})
    assert_same_state(states[1], states[0])
    assert_same_state(states[2], states[0])


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
