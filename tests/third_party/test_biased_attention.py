from __future__ import annotations

import pytest
import torch

from spikedeblur.third_party.VRT import biased_attention
from spikedeblur.third_party.VRT.biased_attention import attend


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(5, 6, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3)
    ]


def bias_of(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def plain(query, key, value, bias):
    logits = torch.einsum("nqhc,nkhc->nhqk", query, key) / 2  # c = 4
    if bias is not None:
        logits = logits + bias
    return torch.einsum("nhqk,nkhc->nqhc", logits.softmax(-1), value)


@pytest.mark.parametrize("bias", [None, bias_of(6, 6), bias_of(2, 6, 6)])
@pytest.mark.parametrize("windows_at_once", [1, 2, 100])
def test_outputs_and_gradients_are_those_of_the_definition(
    parts, bias, windows_at_once, monkeypatch
):
    monkeypatch.setattr(biased_attention, "CHUNK_BYTES", windows_at_once * 2 * 6 * 6 * 8)
    inputs = [*parts] if bias is None else [*parts, bias]
    weight = torch.linspace(-1, 1, 240, dtype=torch.float64).view(5, 6, 2, 4)
    ours, expected = attend(*parts, bias), plain(*parts, bias)
    torch.testing.assert_close(ours, expected)
    for one, other in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_type_is_kept_under_autocast(parts):
    low = [part.detach().bfloat16() for part in parts]
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*low, bias_of(2, 6, 6).float())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out.double(), plain(*(p.double() for p in low), bias_of(2, 6, 6)), rtol=0.02, atol=0.02
    )
