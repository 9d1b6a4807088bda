"""Phases of a run: crop, clip length and batch by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import assert_same_state, metrics_not_measured, run_fit, signal_at
from training_sets import Listener, MemorySequence, TinyNetwork, tiny_config

from spikedeblur.configs import dump_config, load_config
from spikedeblur.pipeline.train import memory_budget
from spikedeblur.pipeline.train.data.samples import SampleError
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.objective import Objective
from spikedeblur.pipeline.train.phases import largest_phase, phase_seed, relative_time
from spikedeblur.pipeline.train.run.runs import RunFolderError, read_metrics
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

LARGER = {"FROM": 4, "CROP_SIZE": 32, "CLIP_LEN": 3}
FEWER = {"FROM": 7, "BATCH_SIZE": 1, "GRADIENT_ACCUMULATION_STEPS": 3}


def sets():
    shape = (16, 24)
    training = [MemorySequence(f"train/{n}", n, voxel_shape=shape) for n in (6, 5)]
    return training, [MemorySequence("val/d", 3, voxel_shape=shape)]


def phased(*phases: dict[str, int], **options: object):
    return tiny_config(PHASES=phases or (LARGER, FEWER), **options)


def session(config) -> Session:
    group, objective = Group(0, 1, torch.device("cpu")), Objective(config.LOSS)
    return Session(config, group, objective, TinyNetwork(), sets())


class Watched(TinyNetwork):
    """Knows the shape of every batch that it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int, int]] = []

    def forward(self, rgb, voxels):
        if self.training:
            self.shapes.append((rgb.shape[0], rgb.shape[1], rgb.shape[-1]))
        return super().forward(rgb, voxels)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    run_fit(run, phased(), data=sets())
    return run


def test_each_phase_has_its_crop_its_clips_and_its_batches(tmp_path):
    model = Watched()
    run_fit(tmp_path, phased(MAX_STEPS=9), model=model, data=sets())
    # 5 + 4 clips of two windows in steps of 4, the last with one; 4 + 3 of three windows.
    first = [shape for shape in model.shapes if shape[1:] == (2, 16) and shape[0] == 2]
    larger = [shape for shape in model.shapes if shape[1:] == (3, 32)]
    assert model.shapes[-6:] == [(1, 2, 16)] * 6
    assert model.shapes.index(larger[0]) in (7, 8)
    assert {shape[0] for shape in larger} == {1, 2}
    assert len(first) + len(larger) + 6 <= len(model.shapes) <= 2 * 4 + 2 * 3 + 6


def test_a_phase_sees_each_of_its_clips_once_before_any_twice():
    for phase in session(phased()).phases:
        clips = np.concatenate(phase.plan.clips(0, 0, phase.plan.steps_an_epoch))
        np.testing.assert_array_equal(np.sort(clips), np.arange(len(phase.training.index)))


def test_phases_draw_from_other_seeds_and_the_first_from_the_runs(tmp_path):
    seeds = [phase.training.seed for phase in session(phased(SEED=3)).phases]
    assert seeds[0] == 3 == phase_seed(3, 0)
    assert len(set(seeds)) == 3
    assert seeds == [phase.plan.seed for phase in session(phased(SEED=3)).phases]


def test_steps_before_the_first_phase_are_those_of_a_run_without_phases(tmp_path):
    lines = []
    for number, config in enumerate((tiny_config(LOG_INTERVAL=1), phased(LOG_INTERVAL=1))):
        run_fit(tmp_path / str(number), config, data=sets(), reporter=signal_at(4))
        lines.append(metrics_not_measured(tmp_path / str(number)))
    assert lines[0] == lines[1]


@pytest.mark.parametrize("stops", [(3,), (4,), (5,), (7,), (4, 7, 8), (11,)])
def test_a_run_stopped_at_a_border_or_within_a_phase_goes_on_the_same(tmp_path, undisturbed, stops):
    for n, stop in enumerate(stops):
        run_fit(tmp_path, phased(), resume=n > 0, data=sets(), reporter=signal_at(stop))
        assert read_checkpoint(checkpoint_path(tmp_path, "last"))["step"] == stop
    run_fit(tmp_path, phased(), resume=True, data=sets())
    for which in ("last", "best"):
        found, expected = (checkpoint_path(run, which) for run in (tmp_path, undisturbed))
        assert_same_state(read_checkpoint(found), read_checkpoint(expected))
    assert metrics_not_measured(tmp_path) == metrics_not_measured(undisturbed)


@pytest.mark.slow
def test_loading_processes_change_no_phase(tmp_path, undisturbed):
    run_fit(tmp_path, phased(NUM_WORKERS=1), data=sets())
    found, expected = (
        read_checkpoint(checkpoint_path(run, "last")) | {"config": ""}
        for run in (tmp_path, undisturbed)
    )
    assert_same_state(found, expected)


def test_epochs_add_up_over_the_phases(undisturbed):
    lines = read_metrics(undisturbed)
    epochs = {line["step"]: line["epoch"] for line in lines}
    plans = [phase.plan for phase in session(phased()).phases]
    assert [plan.steps_an_epoch for plan in plans] == [3, 2, 3]
    assert epochs[4] == pytest.approx(4 / 3)
    assert epochs[12] == pytest.approx(4 / 3 + 3 / 2 + 5 / 3)
    state = read_checkpoint(checkpoint_path(undisturbed, "last"))
    assert (state["epoch"], state["step_in_epoch"]) == divmod(5, 3)


def test_a_phase_from_the_start_leaves_data_to_validation(tmp_path):
    model = Watched()
    run_fit(tmp_path, phased(LARGER | {"FROM": 0}, MAX_STEPS=2), model=model, data=sets())
    assert {shape[1:] for shape in model.shapes} == {(3, 32)}
    again = run_fit(tmp_path, phased(LARGER | {"FROM": 0}, MAX_STEPS=3), resume=True, data=sets())
    assert again.step == 3


def test_phases_that_are_not_begun_may_change_and_the_others_are_named(tmp_path):
    run_fit(tmp_path, phased(), data=sets(), reporter=signal_at(6))
    with pytest.raises(RunFolderError, match=r"TRAIN\.PHASES.*\[4, 32, 3, 4\].*\[4, 16, 3, 4\]"):
        run_fit(tmp_path, phased(LARGER | {"CROP_SIZE": 16}, FEWER), resume=True, data=sets())
    with pytest.raises(RunFolderError, match=r"TRAIN\.PHASES"):
        run_fit(tmp_path, phased(LARGER, LARGER | {"FROM": 5}), resume=True, data=sets())
    later = phased(LARGER, FEWER | {"FROM": 8, "BATCH_SIZE": 2})
    run_fit(tmp_path, later, resume=True, data=sets(), reporter=signal_at(7))
    assert run_fit(tmp_path, later, resume=True, data=sets()).step == 12
    state = read_checkpoint(checkpoint_path(tmp_path, "last"))
    assert (state["samples_a_step"], state["phases"][-1]) == (6, [8, 16, 2, 6])


def test_a_run_without_phases_may_get_one(tmp_path):
    run_fit(tmp_path, tiny_config(), data=sets(), reporter=signal_at(4))
    model = Watched()
    run_fit(tmp_path, phased(LARGER), model=model, resume=True, data=sets())
    assert {shape[1:] for shape in model.shapes} == {(3, 32)}


def test_a_phase_that_the_run_does_not_reach_is_noted(tmp_path):
    listener = Listener()
    run_fit(tmp_path, phased(MAX_STEPS=7), data=sets(), reporter=listener)
    assert [note for note in listener.notes if "PHASES" in note] == [
        "TRAIN.PHASES: that from step 7 on is not reached: the run has 7"
    ]


def test_a_crop_above_the_frames_names_its_phase():
    with pytest.raises(SampleError, match=r"TRAIN\.PHASES: from step 4 on: .*smaller than"):
        session(phased(LARGER | {"CROP_SIZE": 64}))


def test_memory_and_time_are_those_of_the_largest_phase(monkeypatch):
    config = phased()
    largest = largest_phase(config)
    assert (largest.DATA.CROP_SIZE, largest.DATA.CLIP_LEN, largest.TRAIN.BATCH_SIZE) == (32, 3, 2)
    assert largest_phase(tiny_config()) == tiny_config()
    steps = (4 * 2 * 16**2 / (3 * 32**2), 3, 5 * 3 * 2 * 16**2 / (2 * 2 * 3 * 32**2))
    phases = session(config).phases
    assert relative_time(phases, 0, 12) == pytest.approx(sum(steps))
    assert relative_time(phases, 6, 12) == pytest.approx(1 + steps[2])
    assert relative_time(session(tiny_config()).phases, 2, 12) == 10
    tried = []

    def measure(*arguments):
        tried.append(arguments[1])
        raise EOFError

    monkeypatch.setattr(memory_budget, "get_context", lambda how: Context(measure))
    assert memory_budget.try_step(config, torch.device("cpu")) is None
    assert tried == [largest]


class Context:
    """Starts no process, and shows what one would be given."""

    def __init__(self, start):
        self.pid, self._start = 1, start

    def Pipe(self):
        return self, self

    def Process(self, target, args, daemon):
        self._arguments = args
        return self

    def start(self):
        pass

    def poll(self, seconds):
        self._start(*self._arguments)

    close = kill = join = start


def test_phases_are_read_from_a_file_and_from_set_and_written_back(tmp_path):
    (tmp_path / "c.yaml").write_text(dump_config(phased()))
    assert load_config(tmp_path / "c.yaml") == phased()
    words = "TRAIN.PHASES=[{FROM: 4, CROP_SIZE: 32, CLIP_LEN: 3}]"
    assert load_config(tmp_path / "c.yaml", [words]) == phased(LARGER)


def test_work_is_told_of_intervals_within_one_phase(tmp_path):
    run_fit(tmp_path, phased(LOG_INTERVAL=3), data=sets(), model=TinyNetwork(dropout=0))
    told = {x["step"]: x["tflops"] for x in read_metrics(tmp_path) if x["kind"] == "train"}
    assert [step for step, value in told.items() if value is None] == [6, 9]
    assert told[3] > 0
