"""The list of methods that `restore` and `evaluate` share."""

from __future__ import annotations

import pytest

from spikedeblur.pipeline.evaluate import job as evaluating
from spikedeblur.pipeline.methods.make_method import METHODS, UNTRAINED, make_method
from spikedeblur.pipeline.methods.tfp_tfi_sdm import DEFAULT_SHORT_BINS


@pytest.mark.parametrize("name", UNTRAINED)
def test_each_method_is_made_by_its_name(name):
    method = make_method(name, 3)
    assert (method.name, method.clip_len) == (name, 1)
    if UNTRAINED[name].has_short_window:
        assert method.short_bins == 3
        assert make_method(name).short_bins == DEFAULT_SHORT_BINS


def test_evaluate_knows_all_methods_of_restore_and_the_control():
    assert set(evaluating.METHODS) == {*METHODS, "rgb"}
