"""Runs of a tiny network, stopped where a test wants, and what two of them have in common."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from training_sets import SMALL, Listener, MemorySequence, TinyNetwork

from spikedeblur.configs import load_config
from spikedeblur.pipeline.train.clock import STEP_PARTS
from spikedeblur.pipeline.train.data.splits import Part, Splits
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.job import fit
from spikedeblur.pipeline.train.objective import Objective
from spikedeblur.pipeline.train.run.folder import read_resumable
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.session import Session

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


class Killed(BaseException):
    pass


def small_config(store: Path, *more: str):
    overrides = (*SMALL, f"DATA.ROOT={store}", "TRAIN.MAX_STEPS=3", *more)
    return load_config("configs/deblur/quickstart.yaml", overrides)


def mixture(share: float = 0.75) -> Splits:
    training, validation = sets()
    training += [MemorySequence("train/a", 9), MemorySequence("train/e", 1)]
    validation.append(MemorySequence("val/d", 4, ratio=2))
    parts = [Part("one.zarr", share, 3, 1), Part("two.zarr", 1 - share, 2, 1)]
    return Splits(training, validation, parts)
