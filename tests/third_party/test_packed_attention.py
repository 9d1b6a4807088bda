from __future__ import annotations

import pytest
import torch

from spikedeblur.third_party.VRT import packed_attention
from spikedeblur.third_party.VRT.packed_attention import attend

WINDOWS, TOKENS, HEADS, CHANNELS = 10, 6, 2, 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def plain(qkv, groups, bias, swap):
    query, key, value = qkv.unbind(2)
    if swap:
        query = query[[1, 0, 3, 2, 5, 4, 7, 6, 9, 8]]
    logits = torch.einsum("nqhc,nkhc->nhqk", query, key) / CHANNELS**0.5
    logits = logits if bias is None else logits + bias
    masks = [
        torch.zeros(count, 1, TOKENS, TOKENS) if mask is None else mask.expand(count, 1, -1, -1)
        for count, mask in groups
    ]
    weights = (logits + torch.cat(masks)).softmax(-1)
    return torch.einsum("nhqk,nkhc->nqhc", weights, value)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("windows_at_once", [2, 100])
def test_outputs_and_gradients_are_those_of_the_definition(
    with_bias, swap, with_mask, windows_at_once, monkeypatch
):
    size = windows_at_once * HEADS * TOKENS * TOKENS * 4
    monkeypatch.setattr(packed_attention, "CHUNK_BYTES", size)
    qkv = random(WINDOWS, TOKENS, 3, HEADS, CHANNELS).requires_grad_()
    bias = random(HEADS, TOKENS, TOKENS, seed=1).requires_grad_() if with_bias else None
    masks = (None, random(TOKENS, TOKENS, seed=2), random(TOKENS, TOKENS, seed=3))
    groups = [(4, masks[0]), (2, masks[1]), (4, masks[2])] if with_mask else [(WINDOWS, None)]
    inputs = [qkv] if bias is None else [qkv, bias]
    ours, expected = attend(qkv, groups, bias, swap=swap), plain(qkv, groups, bias, swap)
    torch.testing.assert_close(ours, expected)
    upstream = random(*ours.shape, seed=4)
    for one, other in zip(
        torch.autograd.grad((ours * upstream).sum(), inputs),
        torch.autograd.grad((expected * upstream).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(attend(qkv, groups, bias, swap=swap), expected)


def test_type_is_kept_under_autocast():
    qkv = random(WINDOWS, TOKENS, 3, HEADS, CHANNELS)
    bias = random(HEADS, TOKENS, TOKENS, seed=1)
    low = qkv.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(low, [(WINDOWS, None)], bias.float())
    out.float().sum().backward()
    assert out.dtype == low.grad.dtype == torch.bfloat16
    expected = plain(low.detach().double(), [(WINDOWS, None)], bias, False)
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)


def test_only_the_packed_tensor_and_the_result_are_kept():
    qkv = random(WINDOWS, TOKENS, 3, HEADS, CHANNELS).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = attend(qkv, [(4, None), (6, None)], swap=True)
    assert sorted(t.numel() for t in kept if t is not None) == sorted([qkv.numel(), out.numel()])
