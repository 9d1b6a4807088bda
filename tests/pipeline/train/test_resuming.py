"""A run that was stopped or killed goes on as if it had not been."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext

import pytest
from training_runs import (
    CPU,
    Killed,
    assert_same_state,
    metrics_not_measured,
    mixture,
    run_fit,
    sets,
    signal_at,
    small_config,
)
from training_sets import Listener, MemorySequence, TinyNetwork, tiny_config

from spikedeblur.pipeline.train import job
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import fit, train
from spikedeblur.pipeline.train.objective import Objective
from spikedeblur.pipeline.train.run.folder import read_resumable
from spikedeblur.pipeline.train.run.runs import RunFolderError, read_metrics
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.train.validation import Validator
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path


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


def test_continuing_on_other_data_is_refused(tmp_path):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(2))
    data = ([MemorySequence("train/other", 9)], [MemorySequence("val/d", 3)])
    with pytest.raises(RunFolderError, match="not the one that the run was begun with"):
        run_fit(tmp_path, tiny_config(), resume=True, data=data)


def test_a_run_may_continue_with_the_same_step_dealt_otherwise(tmp_path):
    run_fit(tmp_path, tiny_config(), reporter=signal_at(2))
    assert run_fit(tmp_path, tiny_config(BATCH_SIZE=3), resume=True).step == 12
    assert read_checkpoint(checkpoint_path(tmp_path, "last"))["samples_a_step"] == 4


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
