"""Runs that go on longer, or otherwise, than they were planned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from training_runs import Killed, assert_same_state, metrics_not_measured, run_fit, signal_at
from training_sets import SMALL, Listener, MemorySequence, TinyNetwork, tiny_config

from spikedeblur.configs import load_config
from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.optimizer import learning_rate_at
from spikedeblur.pipeline.train.run import checkpoint as run_checkpoint
from spikedeblur.pipeline.train.run import folder as run_folder
from spikedeblur.pipeline.train.run import records as run_records
from spikedeblur.pipeline.train.run.runs import RunFolderError, read_metrics
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import CheckpointError, checkpoint_path

WSD = {"TYPE": "wsd", "WARMUP_STEPS": 3, "DECAY": 0.25}
PHASES = [
    {"FROM": 5, "CROP_SIZE": 32, "CLIP_LEN": 3},
    {"FROM": 10, "BATCH_SIZE": 1, "GRADIENT_ACCUMULATION_STEPS": 3},
]


def planned(steps: int, **options: object):
    usual = {"SCHEDULER": WSD, "PHASES": PHASES, "SEED": 1}
    intervals = {"LOG_INTERVAL": 3, "VAL_INTERVAL": 3, "SAVE_INTERVAL": 4}
    return tiny_config(**usual | intervals | options, MAX_STEPS=steps)


def large_sets():
    shape = (16, 24)
    training = [MemorySequence(f"train/{n}", n, voxel_shape=shape) for n in (6, 5, 1)]
    return training, [MemorySequence("val/d", 3, voxel_shape=shape)]


def take(run: Path, config, **options):
    return run_fit(run, config, data=large_sets(), **options)


def held(run: Path, which: str):
    return read_checkpoint(checkpoint_path(run, which))


def assert_same_run(found: Path, expected: Path) -> None:
    """Compare all that a run leaves; an earlier checkpoint names the length of its own time."""
    assert_same_state(held(found, "last"), held(expected, "last"))
    own = {"config": "", "total_steps": 0}
    for which in ("best", "stable", "stable_best"):
        assert_same_state(held(found, which) | own, held(expected, which) | own)
    assert metrics_not_measured(found) == metrics_not_measured(expected)
    assert load_config(found / "config.yaml") == load_config(expected / "config.yaml")
    pictures = [sorted(p.name for p in run.glob("samples/*")) for run in (found, expected)]
    assert pictures[0] == pictures[1]


@pytest.fixture(scope="module")
def run_of_8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("8")
    torch.set_num_threads(1)
    take(run, planned(8))
    return run


@pytest.fixture(scope="module")
def run_of_16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("16")
    torch.set_num_threads(1)
    take(run, planned(16))
    return run


def test_a_finished_run_made_longer_equals_one_that_was_planned_so(tmp_path, run_of_8, run_of_16):
    """The dropped decay validated best, and left a picture that the longer run does not have."""
    run = shutil.copytree(run_of_8, tmp_path / "run")
    assert held(run, "best")["step"] == 8 > held(run, "stable_best")["step"]
    assert (run / "samples/step_0000008.png").is_file()
    listener = Listener()
    take(run, planned(16), resume=True, reporter=listener)
    assert any(note.startswith("going back to step 6, before the") for note in listener.notes)
    assert_same_run(run, run_of_16)


def test_a_dropped_decay_is_the_best_no_more(tmp_path, run_of_8):
    run = shutil.copytree(run_of_8, tmp_path / "run")
    before = held(run, "stable_best")
    summary = take(run, planned(16), resume=True, reporter=signal_at(7))
    assert (summary.step, summary.best_step) == (7, before["step"])
    assert_same_state(held(run, "best"), before)
    assert max(line["step"] for line in read_metrics(run)) <= 7


@pytest.mark.parametrize("stop", [4, 6, 7])
def test_a_run_made_longer_before_its_end_equals_one_that_was_planned_so(tmp_path, run_of_16, stop):
    """Stopped while the learning rate was stable, as the decay began, and within it."""
    take(tmp_path, planned(8), reporter=signal_at(stop))
    take(tmp_path, planned(16), resume=True)
    assert_same_run(tmp_path, run_of_16)


@pytest.mark.parametrize("stops", [(9, 13), (12,), (14,), (15,)])
def test_a_longer_run_that_is_stopped_again_goes_on_the_same(tmp_path, run_of_8, run_of_16, stops):
    run = shutil.copytree(run_of_8, tmp_path / "run")
    for stop in stops:
        assert take(run, planned(16), resume=True, reporter=signal_at(stop)).step == stop
    take(run, planned(16), resume=True)
    assert_same_run(run, run_of_16)


@pytest.mark.parametrize(("steps", "kill"), [(8, 7), (16, 15)])
def test_a_run_killed_in_its_decay_may_be_made_longer(tmp_path, run_of_16, steps, kill):
    def end(done, total, note):
        if done == kill:
            raise Killed

    with pytest.raises(Killed):
        take(tmp_path, planned(steps), reporter=Listener(end))
    take(tmp_path, planned(16), resume=True)
    assert_same_run(tmp_path, run_of_16)


WRITES = ("config.yaml", "last", "best", "environment.json", "metrics.jsonl")


@pytest.mark.parametrize("write", range(len(WRITES)), ids=WRITES)
def test_a_run_killed_while_it_is_made_longer_goes_on_the_same(
    tmp_path, run_of_8, run_of_16, monkeypatch, write
):
    """Killed before each of the writes between the former end and the next step."""
    run = shutil.copytree(run_of_8, tmp_path / "run")
    done = []

    def until_killed(function):
        def called(*arguments, **options):
            done.append(arguments)
            if len(done) > write:
                raise Killed
            return function(*arguments, **options)

        return called

    with monkeypatch.context() as patched:
        for module in (run_folder, run_records):
            patched.setattr(module, "write_text", until_killed(module.write_text))
        for name in ("write_checkpoint", "_copy_best"):
            patched.setattr(run_checkpoint, name, until_killed(getattr(run_checkpoint, name)))
        with pytest.raises(Killed):
            take(run, planned(16), resume=True)
    assert WRITES[write] in str(done[-1])
    config = run_folder.own_config(run, () if write else ["TRAIN.MAX_STEPS=16"])
    assert config == planned(16)
    take(run, config, resume=True)
    assert_same_run(run, run_of_16)


def test_a_run_may_be_made_longer_more_than_once(tmp_path, run_of_8, run_of_16):
    run = shutil.copytree(run_of_8, tmp_path / "run")
    for steps in (12, 16):
        take(run, planned(steps), resume=True)
    assert_same_run(run, run_of_16)


def test_a_run_that_decayed_from_its_first_step_may_be_made_longer(tmp_path, run_of_16):
    take(tmp_path, planned(1))
    assert held(tmp_path, "stable")["step"] == 0
    take(tmp_path, planned(16), resume=True)
    assert_same_run(tmp_path, run_of_16)


def test_weights_and_biases_knows_the_run_again_unless_steps_are_dropped(tmp_path, run_of_8):
    """Its name there follows from when config.yaml was written."""
    run = shutil.copytree(run_of_8, tmp_path / "run")
    before = (run / "config.yaml").stat().st_mtime_ns
    take(run, planned(16), resume=True, reporter=signal_at(7))
    longer = (run / "config.yaml").stat().st_mtime_ns
    assert longer != before
    otherwise = planned(16, VAL_INTERVAL=5)
    take(run, otherwise, resume=True, reporter=signal_at(8))
    assert load_config(run / "config.yaml") == otherwise
    assert (run / "config.yaml").stat().st_mtime_ns == longer


@pytest.mark.slow
def test_a_finished_run_gets_more_epochs_and_is_finished_again(tmp_path, small_store):
    def config(*more: str):
        sets = (*SMALL, f"DATA.ROOT={small_store}", "TRAIN.MAX_STEPS=null", *more)
        return load_config("configs/deblur/quickstart.yaml", sets)

    once = train(config("TRAIN.EPOCHS=1"), tmp_path)
    for epochs in (1, 2, 2):
        found = train(config(f"TRAIN.EPOCHS={epochs}"), tmp_path, resume=True)
        assert found.step == epochs * once.step
    assert found.was_finished
    same = train(config("TRAIN.EPOCHS=1", f"TRAIN.MAX_STEPS={found.step}"), tmp_path, resume=True)
    assert same.was_finished


def test_a_decay_may_be_asked_for_now(tmp_path, run_of_8):
    """A run planned too long is cut where its decay then begins."""
    take(tmp_path, planned(400), reporter=signal_at(6))
    listener = Listener()
    take(tmp_path, planned(8), resume=True, reporter=listener)
    assert_same_run(tmp_path, run_of_8)
    assert not any("not the run" in note for note in listener.notes)


def test_a_decay_that_comes_too_late_is_said_and_does_not_end_what_is_stable(tmp_path, run_of_16):
    take(tmp_path, planned(400), reporter=signal_at(7))
    listener = Listener()
    take(tmp_path, planned(8), resume=True, reporter=listener)
    assert any("TRAIN.MAX_STEPS=9 or more" in note for note in listener.notes)
    assert held(tmp_path, "stable")["step"] == 7
    take(tmp_path, planned(9), resume=True)
    take(tmp_path, planned(16), resume=True)
    assert_same_run(tmp_path, run_of_16)


def test_without_the_checkpoint_from_before_the_decay_a_longer_run_is_refused(tmp_path, run_of_8):
    run = shutil.copytree(run_of_8, tmp_path / "run")
    checkpoint_path(run, "stable").unlink()
    with pytest.raises(CheckpointError, match=r"stable\.pt: expected the checkpoint from before"):
        take(run, planned(16), resume=True)
    assert held(run, "last")["step"] == 8


def test_a_run_says_what_is_kept_from_before_its_decay(tmp_path, run_of_8):
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml", "checkpoints/stable.pt"):
        shutil.copy(run_of_8 / name, tmp_path / name)
    assert inspect(tmp_path).facts["before the decay"].startswith("stable.pt, step 6: ")


def test_starting_anew_removes_what_was_kept_from_before_the_decay(tmp_path, run_of_8):
    run = shutil.copytree(run_of_8, tmp_path / "run")
    run_folder.begin(run, planned(4))
    assert not list((run / "checkpoints").iterdir())


def test_a_longer_cosine_goes_on_and_says_that_it_is_another_run(tmp_path):
    run_fit(tmp_path, tiny_config(MAX_STEPS=10))
    listener = Listener()
    longer = tiny_config(MAX_STEPS=20)
    summary = run_fit(tmp_path, longer, resume=True, reporter=listener)
    assert summary.step == 20
    assert any("not the run that was planned for 20" in note for note in listener.notes)
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    rates = {line["step"]: line["lr"] for line in lines}
    assert rates[10] == rates[20] == pytest.approx(1e-7)
    assert rates[15] == learning_rate_at(longer.TRAIN, 14, 20) > 1e-3


def test_fewer_steps_than_are_done_are_refused_and_some_in_between_taken(tmp_path):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(6))
    with pytest.raises(RunFolderError, match=r"6 steps done.*TRAIN\.MAX_STEPS to 6 or more"):
        run_fit(tmp_path, tiny_config(MAX_STEPS=5), resume=True)
    assert run_fit(tmp_path, tiny_config(MAX_STEPS=9), resume=True).step == 9


CHANGES = {
    "OPTIM": {"LR": 5e-3, "WEIGHT_DECAY": 0.1, "FLOW_LR_SCALE": 0.5, "BACKBONE_LR_SCALE": 0.5},
    "SCHEDULER": {"WARMUP_STEPS": 2, "MIN_LR": 1e-4},
    "MAX_STEPS": 14,
    "GRAD_CLIP": None,
    "AMP": "bf16",
    "THREADS": 1,
    "ON_ERROR": "skip",
    "NON_FINITE": "skip",
    "VAL_INTERVAL": 7,
    "VAL_MAX_WINDOWS": 2,
    "LOG_INTERVAL": 1,
    "SAVE_INTERVAL": 1,
    "PREFETCH_MB": 1,
    "EARLY_STOP": 9,
    "DATA": {"CACHE_SIZE_GB": 1},
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_run_goes_on_with_another_value_and_says_so(tmp_path, key):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(6))
    listener = Listener()
    changed = tiny_config(**{key: CHANGES[key]})
    assert run_fit(tmp_path, changed, resume=True, reporter=listener).signal is None
    notes = [note for note in listener.notes if "from here on with another" in note]
    assert notes
    assert all(key in note for note in notes)
    starts = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert "changed" not in starts[0]
    assert key in starts[1]["changed"]
    assert load_config(tmp_path / "config.yaml") == changed
    assert run_folder.own_config(tmp_path) == changed


def test_a_learning_rate_and_a_weight_decay_set_anew_are_those_of_the_next_step(tmp_path):
    run_fit(tmp_path, tiny_config(LOG_INTERVAL=1), reporter=signal_at(6))
    changed = tiny_config(LOG_INTERVAL=1, OPTIM={"LR": 5e-3, "WEIGHT_DECAY": 0.25})
    run_fit(tmp_path, changed, resume=True)
    (line,) = [x for x in read_metrics(tmp_path) if (x["kind"], x["step"]) == ("train", 7)]
    assert line["lr"] == learning_rate_at(changed.TRAIN, 6, 12)
    (group,) = held(tmp_path, "last")["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.25


STILL = {"OPTIM": {"LR": 1e-30}, "SCHEDULER": {"MIN_LR": 1e-30}}


def test_a_best_of_other_windows_is_not_compared_with(tmp_path):
    data = ([MemorySequence("train/a")], [MemorySequence("val/d", 6)])
    run_fit(tmp_path, tiny_config(MAX_STEPS=8), data=data, model=TinyNetwork(dropout=0))
    assert held(tmp_path, "last")["best_step"] is not None
    fewer = tiny_config(VAL_MAX_WINDOWS=2, MAX_STEPS=9, **STILL)
    listener = Listener()
    summary = run_fit(tmp_path, fewer, resume=True, data=data, reporter=listener)
    assert any("best is chosen anew" in note for note in listener.notes)
    assert summary.best_step == 9 == held(tmp_path, "best")["step"]


def test_a_best_of_other_scenes_is_not_compared_with(tmp_path):
    training = [MemorySequence("train/a")]
    run_fit(tmp_path, tiny_config(MAX_STEPS=8), data=(training, [MemorySequence("val/d", 6)]))
    listener, other = Listener(), (training, [MemorySequence("val/e", 6)])
    longer = tiny_config(MAX_STEPS=9, **STILL)
    summary = run_fit(tmp_path, longer, resume=True, data=other, reporter=listener)
    assert any("best is chosen anew" in note for note in listener.notes)
    assert summary.best_step == 9 == held(tmp_path, "best")["step"]


def test_a_best_of_before_the_decay_is_forgotten_where_it_was_of_other_windows(tmp_path):
    def config(steps: int, **keys):
        schedule = {"TYPE": "wsd", "DECAY": 0.5, "WARMUP_STEPS": 0}
        return tiny_config(MAX_STEPS=steps, VAL_INTERVAL=2, SCHEDULER=schedule, **keys)

    data = ([MemorySequence("train/a")], [MemorySequence("val/d", 6)])
    run_fit(tmp_path, config(8), data=data, reporter=signal_at(6))
    run_fit(tmp_path, config(8, VAL_MAX_WINDOWS=2), data=data, resume=True)
    listener = Listener()
    longer = config(12, VAL_MAX_WINDOWS=2)
    summary = run_fit(tmp_path, longer, data=data, resume=True, reporter=listener)
    assert any("going back to step 4" in note for note in listener.notes)
    assert any("best is chosen anew" in note for note in listener.notes)
    assert summary.best_step > 4


def test_a_best_of_steps_that_come_otherwise_is_forgotten(tmp_path):
    def kill(done, total, note):
        if done == 9:
            raise Killed

    with pytest.raises(Killed):  # between the best checkpoint of step 8 and the next `last`
        run_fit(tmp_path, tiny_config(), reporter=Listener(kill))
    assert (held(tmp_path, "last")["step"], held(tmp_path, "best")["step"]) == (6, 8)
    summary = run_fit(tmp_path, tiny_config(**STILL), resume=True)
    best = held(tmp_path, "best")
    assert (best["step"], best["best_psnr"]) == (summary.best_step, summary.best_psnr)
    assert best["config"] == held(tmp_path, "last")["config"]


@pytest.mark.parametrize("file", ["gone", "damaged"])
def test_a_run_without_its_configuration_file_has_that_of_its_checkpoint(tmp_path, file):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(6))
    (tmp_path / "config.yaml").write_text("{")
    if file == "gone":
        (tmp_path / "config.yaml").unlink()
    config = run_folder.own_config(tmp_path, ["TRAIN.OPTIM.LR=0.5", "TRAIN.EPOCHS=3"])
    assert (config.TRAIN.OPTIM.LR, config.TRAIN.MAX_STEPS, config.TRAIN.EPOCHS) == (0.5, None, 3)
    assert run_folder.own_config(tmp_path) == tiny_config()
    run_fit(tmp_path, tiny_config(), resume=True)
    assert load_config(tmp_path / "config.yaml") == tiny_config()


def test_a_folder_without_a_run_has_no_configuration_to_go_on_with(tmp_path):
    with pytest.raises(RunFolderError, match="give --config to begin one"):
        run_folder.own_config(tmp_path)
