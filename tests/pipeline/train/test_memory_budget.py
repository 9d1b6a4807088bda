from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_sets import SMALL, Listener, make_store

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.host.device_memory import (
    NotEnoughMemoryError,
    free_memory,
    peak_memory,
)
from spikedeblur.pipeline.train import distributed, memory_budget
from spikedeblur.pipeline.train.dry_run import plan_run
from spikedeblur.pipeline.train.memory_budget import (
    CHOICES,
    MemoryBudgetError,
    Trial,
    fit_in_budget,
    require_step_fits,
    try_step,
)
from spikedeblur.third_party.VRT import Recompute

CPU = torch.device("cpu")
QUICKSTART = "configs/deblur/quickstart.yaml"


def small(*overrides: str):
    return load_config(QUICKSTART, (*SMALL, *overrides))


def test_a_generous_budget_recomputes_nothing():
    recompute, trial = fit_in_budget(small("TRAIN.MEMORY_BUDGET=auto"), CPU)
    assert recompute == Recompute()
    assert 0 < trial.peak_bytes < free_memory(CPU)
    assert trial.seconds > 0


def test_a_budget_that_nothing_fits_in_is_refused_after_all_ways_were_tried(monkeypatch):
    # What python alone takes is more, so that each trial is stopped at once.
    listener = Listener()
    with pytest.raises(MemoryBudgetError, match=r"more than 0\.00 GB even with everything"):
        fit_in_budget(small("TRAIN.MEMORY_BUDGET=1MB"), CPU, listener)
    assert len(listener.notes) == len(CHOICES)
    assert listener.notes[0] == "recomputing nothing: more, of 0.00 GB that are allowed"


def test_a_step_within_the_limit_of_memory_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(memory_budget, "free_main_memory", lambda: 10**9)

    def trial(config, device, recompute=None, *, limit=None, **_):
        tried.append(limit)
        return Trial(limit, 1.0, extrapolated=False)

    monkeypatch.setattr(memory_budget, "try_step", trial)
    assert require_step_fits(small(), CPU, 4).peak_bytes == 250_000_000
    assert tried == [250_000_000]


@pytest.mark.parametrize(("taken", "less"), [(2.0, ", 60% less"), (None, "")])
def test_a_step_above_the_limit_names_what_helps_and_by_how_much(monkeypatch, taken, less):
    monkeypatch.setattr(memory_budget, "free_main_memory", lambda: 10**9)

    def trial(config, device, recompute=None, *, limit=None, **_):
        if recompute == CHOICES[2]:
            return Trial(800_000_000, 1.0, extrapolated=False)
        return None if taken is None else Trial(int(taken * 1e9), 1.0, extrapolated=False)

    monkeypatch.setattr(memory_budget, "try_step", trial)
    with pytest.raises(NotEnoughMemoryError) as raised:
        require_step_fits(small(), CPU)
    said = str(raised.value)
    assert ("would take more than" if taken is None else "would take 2.00 GB, more than") in said
    assert f"recomputing {CHOICES[2]}, a step takes 0.80 GB{less}, with the same" in said
    assert "SPIKEDEBLUR_MEMORY leaves (1.00 GB); set TRAIN.MEMORY_BUDGET=auto: " in said


def test_where_recomputing_does_not_suffice_only_other_settings_are_named(monkeypatch):
    monkeypatch.setattr(memory_budget, "free_main_memory", lambda: 10**9)
    monkeypatch.setattr(memory_budget, "try_step", lambda *_, **__: None)
    with pytest.raises(NotEnoughMemoryError) as raised:
        require_step_fits(small("TRAIN.BATCH_SIZE=4"), CPU, 2)
    said = str(raised.value)
    assert "leaves (0.50 GB for each of 2 processes); recomputing does not suffice; set " in said
    assert "TRAIN.BATCH_SIZE=2 with TRAIN.GRADIENT_ACCUMULATION_STEPS=2 (half" in said
    assert not any(key in said for key in ("USE_CHECKPOINT", "RECOMPUTE", "MEMORY_BUDGET"))


def test_an_error_in_a_trial_is_told():
    config = small("TRAIN.AMP=fp16")
    with pytest.raises(SpikeDeblurError, match=r"a trial step failed: TRAIN\.AMP: fp16 needs"):
        try_step(config, CPU)


def test_a_budget_excludes_a_list_of_parts():
    with pytest.raises(SpikeDeblurError, match=r"RECOMPUTE or TRAIN\.MEMORY_BUDGET"):
        small("TRAIN.MEMORY_BUDGET=8GB", "MODEL.RECOMPUTE=[block]")


@pytest.mark.parametrize("text", ["8GB", "7.5GiB", "auto", "8000000000"])
def test_budgets_are_written_as_people_write_bytes(text):
    budget = small(f"TRAIN.MEMORY_BUDGET={text}").TRAIN.MEMORY_BUDGET
    assert budget == "auto" or 8_000_000_000 <= budget < 8_100_000_000


def test_peak_memory_counts_what_was_freed():
    before = peak_memory(CPU)
    assert before > 50e6
    torch.ones(100_000_000)  # 400 MB
    assert peak_memory(CPU) >= before
    assert peak_memory(CPU) > 400e6


@pytest.mark.slow
def test_the_estimate_is_what_training_then_takes(tmp_path):
    store = make_store(tmp_path, (128, 128))
    command = [
        sys.executable,
        "-c",
        "import sys; from spikedeblur.cli import main; sys.exit(main())",
        "train",
        "--config",
        QUICKSTART,
    ]
    options = ("DATA.K=8", "DATA.NUM_VOXEL_BINS=8", f"DATA.ROOT={store}", "DATA.CROP_SIZE=128")
    options += ("TRAIN.BATCH_SIZE=3", "TRAIN.MAX_STEPS=4", "DATA.CACHE_SIZE_GB=0")
    options += ("TRAIN.EMA_DECAY=null", "TRAIN.VAL_INTERVAL=4", "TRAIN.LOG_INTERVAL=4")
    for override in options:
        command += ["--set", override]
    dry = subprocess.run(
        [*command, "--dry-run", "--json"], check=True, capture_output=True, cwd=Path.cwd()
    )
    plan = json.loads(dry.stdout)
    subprocess.run([*command, "--run", str(tmp_path / "run")], check=True, capture_output=True)
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    (peak,) = (line["peak_memory"] for line in lines if line["kind"] == "train")
    assert plan["peak_bytes"] == pytest.approx(peak, rel=0.15)
    assert peak > 1e9, "too little to tell from what the interpreter takes"


@pytest.mark.slow
def test_smaller_steps_foretell_a_large_one():
    # Ten clips of the trunk's smallest crop, tried at once and foretold from one and two.
    config = load_config(QUICKSTART, ("DATA.CROP_SIZE=128", "TRAIN.BATCH_SIZE=10"))
    whole, foretold = try_step(config, CPU, patience=1000), try_step(config, CPU, patience=0)
    assert whole is not None
    assert foretold is not None
    assert (whole.extrapolated, foretold.extrapolated) == (False, True)
    # A heap has holes of its own in every run: 4 to 63 % were seen, on the safe side.
    assert 0.85 * whole.peak_bytes < foretold.peak_bytes < 2 * whole.peak_bytes


def test_a_dry_run_tells_what_a_run_would_be_and_writes_nothing(tmp_path, monkeypatch):
    store = make_store(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    plan = plan_run(small(f"DATA.ROOT={store}", "TRAIN.MAX_STEPS=30", "TRAIN.BATCH_SIZE=2"))
    assert sorted(tmp_path.rglob("*")) == before
    assert (plan.sequences, plan.steps, plan.clips_a_step) == (3, 30, 2)
    assert plan.epochs == pytest.approx(30 * 2 / plan.clips, rel=0.3)
    assert plan.seconds == pytest.approx(30 * plan.seconds_a_step)
    assert plan.recomputed == "nothing"
    assert not plan.extrapolated


@pytest.mark.slow
def test_a_dry_run_for_eight_gpus_needs_none(tmp_path):
    keys = (f"DATA.ROOT={make_store(tmp_path)}", "TRAIN.MAX_STEPS=5", "TRAIN.BATCH_SIZE=1")
    plan = plan_run(small(*keys, "TRAIN.GRADIENT_ACCUMULATION_STEPS=3"), processes=8)
    assert (plan.clips_a_step, plan.processes, plan.batches_a_step) == (24, 8, 3)
    assert plan.pretended
    assert 1e8 < plan.peak_bytes < free_memory(CPU)
    assert not torch.distributed.is_initialized()


def test_a_trial_for_several_processes_wraps_the_network_as_training_does():
    with distributed.pretended_group(8) as group:
        assert group.is_first
        assert group.sum([1.5]) == [1.5]
        assert group.on_first(lambda: 3) == 3
        model = group.wrap(torch.nn.Linear(2, 1, bias=False), some_unused=True)
        assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
        model(torch.ones(3, 2)).sum().backward()
        assert model.module.weight.grad.tolist() == [[3, 3]]


def test_a_dry_run_needs_the_data_that_training_needs(tmp_path):
    with pytest.raises(SpikeDeblurError, match="nowhere"):
        plan_run(small(f"DATA.ROOT={tmp_path / 'nowhere'}"))
