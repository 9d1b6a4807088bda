"""The plain network of the benchmarks equals the published one, so that speeds compare like."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.benchmarks.plain_vrt import PlainVRT


@pytest.mark.slow
def test_output_and_gradients_equal_the_published(oracle_case):
    case = oracle_case("tiny")
    model = _plain(case)

    output = model(case.clip().double())
    torch.sqrt((output - case.target().double()) ** 2 + 1e-6).mean().backward()

    _assert_equal(output, case)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    assert norms == pytest.approx(case.facts["grad_norm"], rel=1e-5)


@pytest.mark.slow
def test_checkpoints_change_no_gradient(oracle_case):
    case = oracle_case("tiny")
    model = _plain(case, use_checkpoint_attn=True, use_checkpoint_ffn=True)

    output = model(case.clip().double())
    torch.sqrt((output - case.target().double()) ** 2 + 1e-6).mean().backward()

    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    assert norms == pytest.approx(case.facts["grad_norm"], rel=1e-5)


@pytest.mark.slow
def test_the_full_network_equals_the_published(oracle_case):
    case = oracle_case("deblur_006")
    with torch.no_grad():
        output = _plain(case)(case.clip().double())
    _assert_equal(output, case)


def _plain(case, **changes):
    """Build the plain network with the oracle's weights, float64, in eval mode."""
    model = PlainVRT(**case.config, **changes)
    model.load_state_dict(case.model().state_dict(), strict=True)
    return model.double().eval()


def _assert_equal(output, case):
    np.testing.assert_allclose(output.detach().numpy(), case.expected["output"], rtol=0, atol=1e-6)
