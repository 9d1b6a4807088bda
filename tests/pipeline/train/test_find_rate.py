from __future__ import annotations

import numpy as np
import pytest
from training_sets import SMALL, Listener

from spikedeblur.configs import load_config
from spikedeblur.pipeline.train.find_rate import RateRangeError, find_rate, summarise


def test_the_suggestion_lies_below_the_least_loss():
    learning_rates = list(np.geomspace(1e-6, 1, 7))
    found = summarise(learning_rates, [5.0, 4.9, 4.0, 2.0, 1.0, 3.0, 9.0], diverged=True)
    assert found.suggested == pytest.approx(1e-2 / 3, rel=0.05)
    with pytest.raises(RateRangeError, match="did not fall"):
        summarise(learning_rates, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], diverged=False)


def test_a_network_is_trained_at_rising_learning_rates_until_the_loss_rises(small_store):
    config = load_config("configs/deblur/quickstart.yaml", (*SMALL, f"DATA.ROOT={small_store}"))
    seen: list[int] = []
    listener = Listener(lambda done, total, note: seen.append(done))
    found = find_rate(config, 20, reporter=listener)
    assert seen == list(range(len(found.rates) + 1))
    assert found.rates[0] == 1e-6
    assert 1e-5 < found.suggested < 1
    again = find_rate(config, 20)
    assert again == found, "the same seed, the same search"
