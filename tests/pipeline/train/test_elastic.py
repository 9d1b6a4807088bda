"""Runs that are begun, killed and continued by other numbers of processes, under gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_sets import MemorySequence, TinyNetwork, tiny_config

from spikedeblur.pipeline.train import session as session_module
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.distributed import MEETING, process_group
from spikedeblur.pipeline.train.job import fit
from spikedeblur.pipeline.train.objective import Objective, to_inputs
from spikedeblur.pipeline.train.run.folder import read_resumable
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.session import Session
from spikedeblur.pipeline.train.step import Learner
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path

CPU = torch.device("cpu")
STEPS = 12
CLIPS = 6
"""Clips a step."""
LENGTHS = {"train/a": 9, "train/bb": 8, "train/ccc": 1}


def sequences() -> list[MemorySequence]:
    return [MemorySequence(seq, length) for seq, length in LENGTHS.items()]


def config(batch: int, accumulation: int):
    return tiny_config(
        MAX_STEPS=STEPS,
        BATCH_SIZE=batch,
        GRADIENT_ACCUMULATION_STEPS=accumulation,
        GRAD_CLIP=None,
        LOG_INTERVAL=1,
        SAVE_INTERVAL=2,
        VAL_INTERVAL=100,
    )


class Recorder(Learner):
    """Writes which samples a step has, with what weight, and the gradient that it follows."""

    folder: Path
    dies_at = STEPS
    """The first step from this one on that has two batches is not lived through."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.done = self.batches_left = 0
        self.optimizer.register_step_pre_hook(lambda *_: self._keep_gradient())
        self.objective.register_forward_pre_hook(lambda *_: self._count_batch())

    def step(self, batches, done, *args, **options):
        self.done, self.batches_left = done, len(batches)
        samples = [
            (seq, frames[0], round(batch["weight"] / len(batch["seq"]) / self.group.world, 12))
            for batch in batches
            for seq, frames in zip(batch["seq"], batch["frame_index"], strict=True)
            if batch["weight"]
        ]
        with (self.folder / f"samples-{self.group.rank}.jsonl").open("a") as file:
            file.write(json.dumps({"step": done, "samples": samples}) + "\n")
        return super().step(batches, done, *args, **options)

    def _keep_gradient(self) -> None:
        if self.group.is_first:
            gradient = torch.cat([p.grad.flatten() for p in self.model.parameters()])
            torch.save(gradient, self.folder / f"gradient-{self.done}.pt")

    def _count_batch(self) -> None:
        self.batches_left -= 1
        last = self.group.rank == self.group.world - 1
        if last and self.done >= self.dies_at and self.batches_left == 0 < self.done:
            os.kill(os.getpid(), signal.SIGKILL)


def member(rank: int, world: int, run: Path, folder: Path, dies_at: int, how: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world),
        MEETING: str(folder / "meeting"),
    }
    Recorder.folder, Recorder.dies_at = folder, dies_at
    session_module.Learner = Recorder
    state = read_resumable(run, how)
    torch.manual_seed(0)
    model = TinyNetwork(dropout=0)
    with process_group() as group:
        data = sequences(), [MemorySequence("val/d", 3)]
        objective = Objective(how.LOSS)
        fit(Session(how, group, objective, model, data, run=run, state=state))


def train(world: int, run: Path, folder: Path, how: Any, dies_at: int = STEPS) -> list[int]:
    """Train with some processes; return their exit codes."""
    folder.mkdir()
    fork = get_context("fork")
    each = [
        fork.Process(target=member, args=(rank, world, run, folder, dies_at, how))
        for rank in range(world)
    ]
    for process in each:
        process.start()
    for process in each:
        process.join(120)
        if process.exitcode is None:
            process.kill()
    return [process.exitcode or 0 for process in each]


def samples_of(folder: Path) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for path in folder.glob("samples-*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            found.setdefault(line["step"], []).extend(line["samples"])
    return {step: sorted(samples) for step, samples in found.items()}


def mean_gradient(state: dict[str, Any], how: Any) -> torch.Tensor:
    """The gradient of the step after a checkpoint, clip by clip in one process."""
    index = ClipIndex.every_start(list(LENGTHS.values()), 2)
    samples = ClipSamples(sequences(), index, crop_size=16, augment=True)
    step = state["step"]
    model = TinyNetwork(dropout=0)
    model.load_state_dict(state["model"])
    (batch,) = StepPlan(index, CLIPS).batches(step, step + 1)
    for epoch, clip in zip(batch.epochs.tolist(), batch.clips.tolist(), strict=True):
        inputs = to_inputs(collate([samples.sample(epoch, clip)]), CPU, how.DATA.NORM)
        loss = Objective(how.LOSS)(model(inputs.blur, inputs.voxels), inputs.sharp)
        (loss / batch.clips.size).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
def test_three_processes_killed_while_they_accumulate_go_on_as_two_and_then_as_one(tmp_path):
    run, plain = tmp_path / "run", tmp_path / "plain"
    assert train(1, plain, tmp_path / "whole", config(CLIPS, 1)) == [0]
    expected = samples_of(tmp_path / "whole")
    assert sorted(expected) == list(range(STEPS))
    assert {len(samples) for samples in expected.values()} > {CLIPS, 1}

    stages = [(3, config(1, 2), 3), (2, config(2, 1), 7), (1, config(4, 1), STEPS)]
    begun, seen = 0, {}
    for number, (world, how, dies_at) in enumerate(stages):
        folder = tmp_path / str(number)
        kept = tmp_path / f"{number}.pt"
        if number:
            shutil.copyfile(checkpoint_path(run, "last"), kept)
            begun = read_checkpoint(kept)["step"]
        codes = train(world, run, folder, how, dies_at)
        assert (codes[-1] == -signal.SIGKILL) == (dies_at < STEPS), codes
        here = samples_of(folder)
        assert min(here) == begun
        seen |= here
        assert read_checkpoint(checkpoint_path(run, "last"))["samples_a_step"] == CLIPS
        if number:
            reference = mean_gradient(read_checkpoint(kept), how)
            found = torch.load(folder / f"gradient-{begun}.pt")
            assert (found - reference).norm() < 1e-6 * reference.norm()
    assert seen == expected

    losses = [
        [line["loss"] for line in read_metrics(each) if line["kind"] == "train"]
        for each in (run, plain)
    ]
    assert len(losses[0]) == STEPS
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    states = [read_checkpoint(checkpoint_path(each, "last")) for each in (run, plain)]
    for which in ("model", "ema"):
        for name, value in states[1][which].items():
            torch.testing.assert_close(states[0][which][name], value, rtol=1e-3, atol=1e-3)
