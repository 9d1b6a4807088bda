from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from training_sets import tiny_config

from spikedeblur.pipeline.train.ema import averaged_copy, update_average
from spikedeblur.pipeline.train.optimizer import (
    decay_start,
    ema_decay,
    learning_rate_at,
    total_steps,
    warmup_steps,
)


def train(**options):
    return tiny_config(OPTIM={"LR": 1e-3}, **options).TRAIN


def test_the_learning_rate_rises_to_the_peak_and_falls_as_a_cosine_to_the_minimum():
    options = train(SCHEDULER={"WARMUP_STEPS": 10, "MIN_LR": 1e-5})
    learning_rates = [learning_rate_at(options, step, 111) for step in range(111)]
    assert learning_rates[:10] == pytest.approx([1e-4 * (i + 1) for i in range(10)])
    assert learning_rates[10] == pytest.approx(1e-3)
    assert learning_rates[60] == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rates[35] == pytest.approx(1e-5 + 99e-5 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rates[110] == pytest.approx(1e-5)
    assert all(a > b for a, b in itertools.pairwise(learning_rates[10:]))


def test_the_warm_up_takes_at_most_half_of_a_short_run_or_twenty_steps():
    options = train(SCHEDULER={"WARMUP_STEPS": 1000})
    assert [warmup_steps(options, total) for total in (1, 12, 40, 60)] == [20, 20, 20, 30]
    assert learning_rate_at(options, 29, 60) == pytest.approx(1e-3)
    for total in (1, 4, 12, 20, 60):
        assert learning_rate_at(options, 0, total) <= 1e-3 / 20
    assert learning_rate_at(options, 11, 12) == pytest.approx(12e-3 / 20)
    asked = train(SCHEDULER={"WARMUP_STEPS": 0})
    assert learning_rate_at(asked, 0, 12) == pytest.approx(1e-3)


def test_wsd_is_stable_whatever_the_length_and_falls_as_one_minus_a_root():
    options = train(SCHEDULER={"TYPE": "wsd", "WARMUP_STEPS": 30, "DECAY": 0.25, "MIN_LR": 1e-5})
    assert [decay_start(options, total) for total in (1, 2, 40, 100)] == [0, 1, 30, 75]
    of_40, of_100 = ([learning_rate_at(options, s, n) for s in range(n)] for n in (40, 100))
    assert of_40[:30] == of_100[:30] == pytest.approx([1e-3 * (s + 1) / 30 for s in range(30)])
    assert set(of_100[30:75]) == {1e-3}
    assert of_100[99] == of_40[39] == pytest.approx(1e-5)
    done = np.arange(1, 26) / 25
    assert of_100[75:] == pytest.approx(1e-5 + 99e-5 * (1 - np.sqrt(done)))


def test_a_decay_that_begins_within_the_warm_up_falls_from_what_was_reached():
    options = train(SCHEDULER={"TYPE": "wsd", "WARMUP_STEPS": 100, "DECAY": 0.5})
    learning_rates = [learning_rate_at(options, step, 20) for step in range(20)]
    assert max(learning_rates) == learning_rates[9] == pytest.approx(1e-4)
    assert all(a > b for a, b in itertools.pairwise(learning_rates[9:]))


def test_steps_come_before_epochs():
    assert total_steps(train(MAX_STEPS=7, EPOCHS=3), 10) == 7
    assert total_steps(train(MAX_STEPS=None, EPOCHS=3), 10) == 30


def test_the_average_follows_the_recurrence_and_forgets_the_start():
    model = nn.Linear(1, 1, bias=False)
    average = averaged_copy(model)
    expected = model.weight.item()
    for step in range(50):
        with torch.no_grad():
            model.weight.fill_(step)
        decay = min(0.9, (1 + step) / (10 + step))
        assert ema_decay(0.9, step) == decay
        expected = decay * expected + (1 - decay) * step
        update_average(average, model, decay)
    assert average.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not average.weight.requires_grad
