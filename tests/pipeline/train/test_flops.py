"""What a step costs: operations counted, and the peak that they are compared with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import deform_conv2d
from training_sets import MemorySequence, TinyNetwork, tiny_config

from spikedeblur.pipeline.train import flops
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.flops import Work, count_clip_flops, measure_peak, measure_work
from spikedeblur.pipeline.train.job import fit
from spikedeblur.pipeline.train.objective import Objective
from spikedeblur.pipeline.train.precision import Precision
from spikedeblur.pipeline.train.run.runs import read_metrics
from spikedeblur.pipeline.train.session import Session

CPU = torch.device("cpu")


def session(run: Path = Path(), **options) -> Session:
    config = tiny_config(**options)
    splits = [MemorySequence("train/a", 6)], [MemorySequence("val/b", 2)]
    objective = Objective(config.LOSS)
    return Session(config, Group(0, 1, CPU), objective, TinyNetwork(), splits, run=run)


def test_operations_of_a_clip_are_those_of_its_products_three_times():
    ours = session()
    side, frames = ours.config.DATA.CROP_SIZE, ours.config.DATA.CLIP_LEN
    small = side // 2
    by_hand = 2 * 8 * 3 * 9 * side**2 + 2 * 8 * 4 * small**2 + 2 * 3 * 8 * side**2
    learner = ours.learner()
    before = torch.get_rng_state()
    assert count_clip_flops(ours.phases[0], learner) == 3 * frames * by_hand
    assert learner.model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in learner.model.parameters())


def test_a_deformable_convolution_counts_as_a_plain_one():
    x, weight = torch.rand(2, 4, 6, 7), torch.rand(8, 4, 3, 3)
    offset = torch.zeros(2, 18, 6, 7)
    counted = []
    for call in (
        lambda: deform_conv2d(x, offset, weight, padding=1),
        lambda: torch.nn.functional.conv2d(x, weight, padding=1),
    ):
        with flops.FlopCounterMode(display=False, custom_mapping=flops._deformable()) as counter:
            call()
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] == 2 * 2 * 8 * 4 * 9 * 6 * 7


def test_the_peak_is_what_a_large_product_reaches():
    peak = measure_peak(Precision(CPU, None))
    assert 1e8 < peak < 1e14
    work = Work(2 * 10**9, 1e12)
    assert work.tflops(300) == pytest.approx(0.6)
    assert work.share(300, 2) == pytest.approx(0.3)


def test_each_line_of_a_run_tells_operations_a_second_and_their_share(tmp_path, monkeypatch):
    monkeypatch.setattr(flops, "measure_peak", lambda precision: 1e12)
    ours = session(tmp_path, MAX_STEPS=6, LOG_INTERVAL=3)
    learner = SimpleNamespace(model=TinyNetwork(), precision=Precision(CPU, None))
    cost = measure_work(ours, learner)[0]
    fit(ours)
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert len(lines) == 2
    for line in lines:
        expected = line["samples_per_s"] * cost.clip_flops / 1e12
        assert line["tflops"] == pytest.approx(expected)
        assert line["peak_share"] == pytest.approx(expected)
