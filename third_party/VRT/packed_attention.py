"""Attention inside windows, on queries, keys and values packed in one tensor.

In training on a CPU, autograd would keep every attention matrix where the bias is learned, and
would fill and add whole tensors for each part that is cut out of the packed one. Here the forward
pass is torch's fused one, only the packed tensor and the result are kept, and the backward pass
computes the matrices again, a few windows at a time, into one packed gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 1 << 20
"""Most bytes of attention matrices at once in the backward pass; about a core's cache."""

Groups = Sequence[tuple[int, Tensor | None]]
"""Number of windows of each kind, in order, and their mask (N, N) or None."""


def attend(
    qkv: Tensor, groups: Groups, bias: Tensor | None = None, *, swap: bool = False
) -> Tensor:
    """Attention of each window's tokens to one another.

    Under autocast a CPU attends in float32: on one without matrix units for bf16, the fused kernel
    takes 1.0 (384 tokens) to 1.5 (48 tokens) times as long in bf16 (torch 2.14, EPYC).

    Args:
        qkv: (n, N, 3, h, c): query, key and value of each token.
        groups: kinds of windows; their numbers add up to n, their masks are added to the logits.
        bias: (h, N, N), added to all logits; None for none.
        swap: windows 2 i and 2 i + 1 are a pair, and each attends to the other.

    Returns:
        (n, N, h, c).
    """
    with torch.autocast(qkv.device.type, enabled=False):
        # The compiler plans the backward pass of what it compiles.
        eager = not torch.compiler.is_compiling()
        if eager and qkv.device.type == "cpu" and torch.is_grad_enabled():
            out: Tensor = _PackedAttention.apply(qkv, bias, groups, swap)
            return out
        return _attend(qkv, bias, groups, swap)


def _attend(qkv: Tensor, bias: Tensor | None, groups: Groups, swap: bool) -> Tensor:
    on_cpu = qkv.device.type == "cpu"
    done = []
    for part, mask in _by_kind(qkv, groups):
        query, key, value = _heads(_wide(part) if on_cpu else part, swap)
        logits = _logit_bias(bias, mask, query)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=logits)
        done.append(out.transpose(1, 2).to(qkv.dtype))
    return torch.cat(done) if len(done) > 1 else done[0]  # (n, N, h, c)


class _PackedAttention(torch.autograd.Function):
    """Fused forward, recomputed backward."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor | None, groups: Groups, swap: bool) -> Tensor:
        # Detached, since a bias that wants a gradient would choose the slow path even here.
        out = _attend(qkv, None if bias is None else bias.detach(), groups, swap)
        ctx.save_for_backward(qkv, bias, out)
        ctx.groups, ctx.swap = groups, swap
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        qkv, bias, out = ctx.saved_tensors
        tokens, heads = qkv.shape[1], qkv.shape[3]
        step = max(2, CHUNK_BYTES // (4 * heads * tokens * tokens) // 2 * 2)  # pairs stay together
        grad_qkv = torch.empty_like(qkv)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        kinds = zip(
            *(_by_kind(part, ctx.groups) for part in (qkv, out, grad, grad_qkv)), strict=True
        )
        for (packed, mask), (result, _), (upstream, _), (to, _) in kinds:
            chunks = (part.split(step) for part in (packed, result, upstream, to))
            for part, o, g, grad_part in zip(*chunks, strict=True):
                g = _wide(g).transpose(1, 2)
                inputs = _heads(_wide(part), ctx.swap)
                logits = _logit_bias(bias, mask, inputs[0])
                if bias is None:
                    gradients = _fused_gradients(inputs, logits, g)
                else:
                    assert grad_bias is not None
                    assert logits is not None
                    o = _wide(o).transpose(1, 2)
                    *gradients, grad_logits = _gradients(inputs, logits, o, g)
                    grad_bias += grad_logits.sum(0)
                if ctx.swap:
                    gradients[0] = _swapped(gradients[0])
                for i, gradient in enumerate(gradients):
                    grad_part[:, :, i].copy_(gradient.transpose(1, 2))
        return grad_qkv, grad_bias, None, None


def _gradients(inputs: Sequence[Tensor], logits: Tensor, out: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the gradients of query, key, value (n, h, N, c) and of the logits (n, h, N, N)."""
    query, key, value = inputs
    scale = 1 / math.sqrt(query.shape[-1])
    weight = torch.matmul(query * scale, key.transpose(-2, -1)).add_(logits).softmax(-1)
    grad_value = weight.transpose(-2, -1) @ grad
    grad_logits = torch.matmul(grad, value.transpose(-2, -1))
    grad_logits.sub_((grad * out).sum(-1, keepdim=True)).mul_(weight)  # through the softmax
    grad_query = (grad_logits @ key).mul_(scale)
    grad_key = (grad_logits.transpose(-2, -1) @ query).mul_(scale)
    return [grad_query, grad_key, grad_value, grad_logits]


def _fused_gradients(inputs: Sequence[Tensor], logits: Tensor | None, grad: Tensor) -> list[Tensor]:
    """Return the gradients of query, key and value by torch's own kernel."""
    with torch.enable_grad():
        query, key, value = (part.detach().requires_grad_() for part in inputs)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=logits)
    return list(torch.autograd.grad(out, (query, key, value), grad))


def _by_kind(packed: Tensor, groups: Groups) -> Iterator[tuple[Tensor, Tensor | None]]:
    parts = packed.split([count for count, _ in groups])
    return zip(parts, (mask for _, mask in groups), strict=True)


def _heads(qkv: Tensor, swap: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(n, N, 3, h, c) -> query, key, value (n, h, N, c)."""
    query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
    return _swapped(query) if swap else query, key, value


def _swapped(windows: Tensor) -> Tensor:
    return windows.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _logit_bias(bias: Tensor | None, mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Return bias plus mask as (1, h, N, N); None where there is neither."""
    if bias is None:
        total = mask
    else:
        total = bias if mask is None else bias + mask
    if total is None:
        return None
    return total.to(query.dtype).expand(1, query.shape[1], *total.shape[-2:])


def _wide(part: Tensor) -> Tensor:
    """Return float32 for a narrower type."""
    return part.float() if part.dtype in (torch.bfloat16, torch.float16) else part
