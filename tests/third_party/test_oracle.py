"""Our VRT equals the published network; float64, because floor amplifies float32's rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from spikedeblur.third_party.VRT import (
    VRT,
    Recompute,
    deformable,
    packed_attention,
    set_recompute,
    warping,
)

CASES = ["tiny", "tiny_8window", "deblur_006"]
SLOW = pytest.mark.slow  # convolutions in float64 are slow on CPU


@pytest.mark.parametrize("name", CASES)
def test_state_dict_has_the_published_names_shapes_and_types(oracle_case, name):
    case = oracle_case(name)
    own = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in VRT(**case.config).state_dict().items()
    }
    assert own == case.facts["state_dict"]


@pytest.mark.parametrize("name", ["tiny", pytest.param("tiny_8window", marks=SLOW)])
def test_outputs_flows_stages_and_gradients_equal_the_published(oracle_case, name):
    case = oracle_case(name)
    model = case.model().double()
    seen = _record(model)
    seen["output"] = _output_and_gradients_are_published(case, model)
    _assert_equal(seen, case.expected)


@SLOW
def test_with_all_recomputed_it_equals_the_published(oracle_case):
    case = oracle_case("tiny")
    model = case.model().double()
    set_recompute(model, Recompute(True, True, True, True, True))
    _output_and_gradients_are_published(case, model)


@SLOW
def test_cut_into_the_smallest_parts_it_equals_the_published(oracle_case, monkeypatch):
    monkeypatch.setattr(packed_attention, "CHUNK_BYTES", 1)
    monkeypatch.setattr(deformable, "SAMPLED_BYTES", 1)
    monkeypatch.setattr(warping, "OFFSET_BYTES", (1, 1))
    case = oracle_case("tiny")
    _output_and_gradients_are_published(case, case.model().double())


@SLOW
def test_with_attention_written_out_it_equals_the_published(oracle_case):
    case = oracle_case("tiny")  # as on devices without a fused kernel: other strides come out
    with sdpa_kernel(SDPBackend.MATH):
        _output_and_gradients_are_published(case, case.model().double())


@SLOW
def test_compiled_without_a_graph_break_it_equals_the_published(oracle_case):
    case = oracle_case("tiny")
    model = case.model().double()
    with torch.no_grad():
        model(case.clip().double())  # plans its windows
    model.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    _output_and_gradients_are_published(case, model)


def _output_and_gradients_are_published(case, model) -> torch.Tensor:
    output = model(case.clip().double())
    loss = torch.sqrt((output - case.target().double()) ** 2 + 1e-6).mean()
    loss.backward()
    _assert_equal({"output": output}, {"output": case.expected["output"]})
    assert loss.item() == pytest.approx(case.expected["loss"], abs=1e-9)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    assert norms == pytest.approx(case.facts["grad_norm"], rel=1e-5)
    return output


@SLOW
def test_the_full_network_equals_the_published(oracle_case):
    case = oracle_case("deblur_006")
    model = case.model().double()
    seen = _record(model)
    with torch.no_grad():
        seen["output"] = model(case.clip().double())
    _assert_equal(seen, case.expected)


@pytest.mark.parametrize("name", ["tiny", "tiny_8window", pytest.param("deblur_006", marks=SLOW)])
def test_float32_stays_near_the_published(oracle_case, name):
    case = oracle_case(name)
    with torch.no_grad():
        output = case.model()(case.clip()).numpy()
    error = np.abs(output - case.expected["output"])
    assert np.percentile(error, 90) < 1e-2


def _record(model):
    """Note flows, and stage outputs as (B, C, D, H, W), when the model runs."""
    seen = {}

    def note_flows(module, args, flows):
        for scale, flow in enumerate(flows):  # both directions in one batch
            backward, forward = flow.chunk(2)
            seen[f"flow_backward_{scale}"], seen[f"flow_forward_{scale}"] = backward, forward

    def note(name):
        def hook(module, args, features):
            seen[f"mid_{name}"] = features.permute(0, 4, 1, 2, 3)

        return hook

    model.spynet.register_forward_hook(note_flows)
    model.conv_first.register_forward_hook(
        lambda module, args, out: seen.__setitem__("mid_conv_first", out.transpose(1, 2))
    )
    for i in range(1, 8):
        getattr(model, f"stage{i}").register_forward_hook(note(f"stage{i}"))
    model.stage8[-1].register_forward_hook(note("stage8"))
    return seen


def _assert_equal(seen, expected):
    for name, value in expected.items():
        if name == "loss":
            continue
        ours = seen[name].detach().numpy()
        if name.startswith("flow"):
            ours = ours.reshape(value.shape)
        if name.startswith("mid"):  # the oracle holds some channels, rows and columns
            steps = (ours.shape[1] // value.shape[1], ours.shape[-1] // value.shape[-1])
            ours = ours[:1, :: steps[0], :, :: steps[1], :: steps[1]]
        np.testing.assert_allclose(ours, value, rtol=0, atol=1e-6, err_msg=name)
