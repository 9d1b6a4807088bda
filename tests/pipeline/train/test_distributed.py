from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from outsiders import beyond_this_machine, listening
from training_runs import assert_same_state, metrics_not_measured
from training_sets import SMALL

from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path


def test_one_process_needs_no_group():
    group = Group(0, 1, torch.device("cpu"))
    model = torch.nn.Linear(1, 1)
    assert group.is_first
    assert group.wrap(model, some_unused=False) is model
    assert group.sum([1.5, 2]) == [1.5, 2]
    assert group.gather("a") == ["a"]
    assert group.on_first(lambda: 3) == 3


def command(
    processes: int, run: Path, store: Path, *more: str, by_torchrun: bool = False
) -> list[str]:
    overrides = (*SMALL, f"DATA.ROOT={store}", "DATA.AUGMENT=false", "TRAIN.MAX_STEPS=10")
    arguments = ["--config", "configs/deblur/quickstart.yaml", "--run", str(run)]
    for override in overrides:
        arguments += ["--set", override]
    if by_torchrun:
        words = ["torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}"]
        words += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "--", "spikedeblur"]
        return [sys.executable, "-m", *words, "train", *arguments, *more]
    gpus = ["--gpus", str(processes)]
    return [sys.executable, "-m", "spikedeblur", "train", *gpus, *arguments, *more]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def start(processes: int, run: Path, store: Path, *more: str, by_torchrun: bool = False) -> str:
    done = subprocess.run(
        command(processes, run, store, *more, by_torchrun=by_torchrun),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(tmp_path, small_store):
    """Six clips in steps of four: the last step of an epoch is a short one."""
    accumulate = ("--set", "TRAIN.GRADIENT_ACCUMULATION_STEPS=2")
    # Behind a last convolution at zero gradients are rounding alone, of which Adam makes steps.
    at_random = ("--set", "MODEL.FUSE.IDENTITY_INIT=false")
    for processes in (1, 2):
        start(
            processes,
            tmp_path / str(processes),
            small_store,
            *("--set", f"TRAIN.BATCH_SIZE={2 // processes}"),
            *accumulate,
            *at_random,
        )
    runs = [tmp_path / "1", tmp_path / "2"]
    lines = [[line for line in read_metrics(run) if line["kind"] == "train"] for run in runs]
    losses = [[line["loss"] for line in one] for one in lines]
    assert len(losses[0]) == 10
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    states = [read_checkpoint(checkpoint_path(run, "last")) for run in runs]
    assert states[1]["best_psnr"] == pytest.approx(states[0]["best_psnr"], abs=1e-3)
    # Half a step: Adam divides by gradients' size, so rounding of tiny ones, which processors do
    # in ways of their own, moves a few weights by much of a step.
    for name, value in states[0]["model"].items():
        torch.testing.assert_close(states[1]["model"][name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_two_processes_refuse_a_used_folder_together(tmp_path, small_store):
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(AssertionError, match="holds a run already"):
        start(2, tmp_path, small_store, by_torchrun=True)


@pytest.mark.slow
def test_two_killed_processes_resumed_equal_two_undisturbed(tmp_path, small_store):
    """Killed while they train, two batches a step, and across the end of an epoch.

    The undisturbed ones are torchrun's.
    """
    more = ("--set", "TRAIN.GRADIENT_ACCUMULATION_STEPS=2", "--set", "TRAIN.SAVE_INTERVAL=1")
    start(2, tmp_path / "whole", small_store, *more, by_torchrun=True)
    run = tmp_path / "killed"
    process = subprocess.Popen(
        command(2, run, small_store, *more), env=ENVIRONMENT, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run)) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()  # they end with the one that launched them
    process.wait()
    start(2, run, small_store, *more, "--resume")
    for which in ("last", "best"):
        assert_same_state(
            read_checkpoint(checkpoint_path(run, which)),
            read_checkpoint(checkpoint_path(tmp_path / "whole", which)),
        )
    assert metrics_not_measured(run) == metrics_not_measured(tmp_path / "whole")


@pytest.mark.slow
def test_while_two_processes_train_no_other_machine_reaches_them(tmp_path, small_store):
    run = tmp_path / "run"
    private = tmp_path / "private"
    private.mkdir()
    process = subprocess.Popen(
        command(2, run, small_store), env=ENVIRONMENT | {"TMPDIR": str(private)}
    )
    seen, modes = set(), {}
    while process.poll() is None:
        seen |= listening(process.pid)
        modes |= {path.name: path.parent.stat().st_mode & 0o777 for path in private.glob("*/*")}
        time.sleep(0.05)
    assert process.returncode == 0
    assert seen  # gloo's
    assert beyond_this_machine(seen) == set()
    assert modes["processes"] == 0o700
    assert not list(private.glob("*/processes"))


@pytest.mark.slow
def test_two_processes_that_are_stopped_leave_a_checkpoint_and_pass_the_signal_on(
    tmp_path, small_store
):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(2, run, small_store, "--set", "TRAIN.MAX_STEPS=1000"),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run)) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, said
    assert said.count("the checkpoint is written") == 1
    assert "Traceback" not in said
    assert 0 < read_checkpoint(checkpoint_path(run, "last"))["step"] < 1000
