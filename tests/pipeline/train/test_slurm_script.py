"""scripts/train_slurm.sh, as sbatch runs it on one node or two, with two processes, under gloo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import assert_same_state, metrics_not_measured
from training_sets import SMALL

from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

TESTS = Path(__file__).resolve().parents[2]
SCRIPT = TESTS.parent / "scripts/train_slurm.sh"
STEPS = 150
"""Enough that a signal, which goes through three processes, comes before the end."""


def start(folder: Path, run: Path, store: Path, nodes: list[str]) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{TESTS / 'support/slurm'}{os.pathsep}{os.environ['PATH']}",
        "FAKE_SLURM": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": ",".join(nodes),
        "SLURM_JOB_NUM_NODES": str(len(nodes)),
        "SLURM_GPUS_ON_NODE": str(2 // len(nodes)),
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
    }
    words = ["bash", str(SCRIPT), "--config", "configs/deblur/quickstart.yaml", "--run", str(run)]
    for override in (*SMALL, f"DATA.ROOT={store}", f"TRAIN.MAX_STEPS={STEPS}"):
        words += ["--set", override]
    return subprocess.Popen(words, env=environment, stderr=(folder / "err").open("ab"))


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [["a"], ["a", "b"]], ids=["one node", "two nodes"])
def test_job_that_is_stopped_queues_itself_and_resumes_to_the_same_weights(
    tmp_path, small_store, nodes
):
    whole = start(tmp_path, tmp_path / "whole", small_store, nodes)
    assert whole.wait(120) == 0, (tmp_path / "err").read_text()
    assert not (tmp_path / "7.requeued").exists()

    run = tmp_path / "stopped"
    job = start(tmp_path, run, small_store, nodes)
    deadline = time.monotonic() + 120
    # The first line is the validation of the start.
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run)) < 2:
        assert job.poll() is None, (tmp_path / "err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) != 0
    assert (tmp_path / "7.requeued").exists()
    assert 0 < read_checkpoint(checkpoint_path(run, "last"))["step"] < STEPS

    (tmp_path / "7.requeued").unlink()
    assert start(tmp_path, run, small_store, nodes).wait(120) == 0, (tmp_path / "err").read_text()
    assert not (tmp_path / "7.requeued").exists()
    states = [read_checkpoint(checkpoint_path(each, "last")) for each in (run, tmp_path / "whole")]
    assert states[0]["step"] == STEPS
    assert_same_state(*states)
    assert metrics_not_measured(run) == metrics_not_measured(tmp_path / "whole")
