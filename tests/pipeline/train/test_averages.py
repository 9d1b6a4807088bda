"""Averages of the weights with several decays, of which validation chooses one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_runs import assert_same_state, metrics_not_measured, run_fit, signal_at
from training_sets import SMALL, TinyNetwork, tiny_config

from spikedeblur.configs import load_config
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.weights.checkpoint import describe_checkpoint, load_run, read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

DECAYS = (0.9, 0.5, 0.0)


def validations(run: Path):
    return [line for line in read_metrics(run) if line["kind"] == "val"]


def held(run: Path, which: str):
    return read_checkpoint(checkpoint_path(run, which))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("several")
    torch.set_num_threads(1)
    run_fit(run, tiny_config(EMA_DECAY=DECAYS))
    return run


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    runs = {decay: tmp_path_factory.mktemp("single") for decay in DECAYS}
    torch.set_num_threads(1)
    for decay, run in runs.items():
        run_fit(run, tiny_config(EMA_DECAY=decay))
    return runs


def test_each_decay_is_validated_as_if_it_were_the_only_one(several, single):
    for decay, run in single.items():
        expected = [line["psnr"] for line in validations(run)]
        assert [line[f"psnr_ema_{decay}"] for line in validations(several)] == expected
        averages = held(several, "last")["averages"]
        assert_same_state(dict(averages[decay]), dict(held(run, "last")["ema"]))


def test_the_best_validation_decides_which_average_is_kept(several, single):
    for line in validations(several):
        assert line["psnr"] == max(line[f"psnr_ema_{decay}"] for decay in DECAYS)
    best = held(several, "best")
    assert best["best_psnr"] == max(line["psnr"] for line in validations(several))
    chosen = single[best["ema_decay"]]
    assert best["ema_decay"] != DECAYS[0]
    assert_same_state(dict(best["ema"]), dict(held(chosen, "best")["ema"]))
    assert "averages" not in best


def test_a_single_decay_writes_what_it_always_did(single):
    state = held(single[0.9], "last")
    assert not {"averages", "ema_decay"} & state.keys()
    assert not any("psnr_ema" in key for line in validations(single[0.9]) for key in line)


@pytest.mark.parametrize("stop", [4, 7])
def test_a_stopped_run_goes_on_with_all_its_averages(tmp_path, several, stop):
    run_fit(tmp_path, tiny_config(EMA_DECAY=DECAYS), reporter=signal_at(stop))
    run_fit(tmp_path, tiny_config(EMA_DECAY=DECAYS), resume=True)
    for which in ("last", "best"):
        assert_same_state(held(tmp_path, which), held(several, which))
    assert metrics_not_measured(tmp_path) == metrics_not_measured(several)


def test_a_longer_run_goes_on_with_all_its_averages(tmp_path):
    options = {"SCHEDULER": {"TYPE": "wsd", "WARMUP_STEPS": 3}, "EMA_DECAY": DECAYS}
    for steps in (8, 12):
        run_fit(tmp_path / "longer", tiny_config(**options, MAX_STEPS=steps), resume=steps > 8)
    run_fit(tmp_path / "planned", tiny_config(**options))
    assert_same_state(held(tmp_path / "longer", "last"), held(tmp_path / "planned", "last"))


def test_an_average_whose_result_is_no_number_is_not_chosen(tmp_path):
    class Broken(TinyNetwork):
        """Gives NaN in validation, but for the first of its averages."""

        def __deepcopy__(self, memo):
            made = TinyNetwork()
            made.load_state_dict(self.state_dict())
            if not hasattr(self, "copied"):
                self.copied = True
                made.forward = lambda rgb, voxels: rgb * float("nan")
            return made

    run_fit(tmp_path, tiny_config(EMA_DECAY=[0.5, 0.9], MAX_STEPS=4), model=Broken())
    assert [line["psnr_ema_0.5"] for line in validations(tmp_path)] == [None, None]
    assert held(tmp_path, "best")["ema_decay"] == 0.9


@pytest.mark.slow
def test_the_kept_average_is_the_model_of_the_run(tmp_path, small_store):
    sets = (*SMALL, f"DATA.ROOT={small_store}", "TRAIN.MAX_STEPS=2", "TRAIN.EMA_DECAY=[0.9, 0.5]")
    run = tmp_path / "run"
    train(load_config("configs/deblur/quickstart.yaml", sets), run)
    best = held(run, "best")
    assert_same_state(dict(load_run(run)[0].state_dict()), dict(best["ema"]))
    facts, _ = describe_checkpoint(checkpoint_path(run, "best"))
    assert facts["averaged weights"] == best["ema_decay"]
    resumed = load_config(run / "config.yaml", ["TRAIN.MAX_STEPS=3"])
    assert train(resumed, run, resume=True).step == 3
