"""Multi-head attention among a pixel's frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_FRAMES = 4
"""Most frames for which products of whole maps beat batches of T x T matrices (torch 2.14, CPU, 32
to 96 channels: 7 against 16 ms at T = 3, 66 against 32 at T = 5)."""


class TimeAttention(nn.Module):
    """`nn.MultiheadAttention` over axis T of (B, T, H, W, C), each pixel by itself.

    Parameters, names, start and result are the same. Fused kernels are slow at millions of
    sequences of a few tokens, so the small products are written out.

    Args:
        dim: Channels C.
        heads: Attention heads; must divide C.
        dropout: Dropout of the attention weights, in training.
        identity_init: Start the output projection at zero.
    """

    def __init__(
        self, dim: int, heads: int, dropout: float = 0.0, identity_init: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        if identity_init:
            nn.init.zeros_(self.out_proj.weight)

    def forward(self, query: Tensor, source: Tensor | None = None) -> Tensor:
        """Attend from each frame to all frames.

        Args:
            query: (B, T, H, W, C).
            source: (B, T', H, W, C) of keys and values; None: the query itself.

        Returns:
            (B, T, H, W, C).
        """
        dim = query.shape[-1]
        if source is None:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            q, k, v = projected.unflatten(-1, (3, dim)).unbind(-2)  # (B, T, H, W, C) each
        else:
            weight_q, weight_kv = self.in_proj_weight.split((dim, 2 * dim))
            bias_q, bias_kv = self.in_proj_bias.split((dim, 2 * dim))
            q = F.linear(query, weight_q, bias_q)
            k, v = F.linear(source, weight_kv, bias_kv).unflatten(-1, (2, dim)).unbind(-2)
        q = q * (dim // self.heads) ** -0.5
        attend = self._attend_by_maps if k.shape[1] <= FEW_FRAMES else self._attend_by_matrices
        out: Tensor = self.out_proj(attend(q, k, v))
        return out

    def _attend_by_maps(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One product of whole maps for each source frame."""
        # Sums a head's channels, and spreads a head's weight over them.
        of_head = torch.eye(self.heads, dtype=q.dtype, device=q.device)
        of_head = of_head.repeat_interleave(q.shape[-1] // self.heads, dim=1)  # (heads, C)
        frames = range(k.shape[1])
        logits = torch.stack([F.linear(q * k[:, u : u + 1], of_head) for u in frames])
        weights = self._drop(logits.softmax(0))  # (T', B, T, H, W, heads)
        out = (weights[0] @ of_head) * v[:, :1]
        for u in frames[1:]:
            out = out + (weights[u] @ of_head) * v[:, u : u + 1]
        return out  # (B, T, H, W, C)

    def _attend_by_matrices(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A batch of T x T' matrices, one for each pixel and head."""
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 4, 1, 5) for x in (q, k, v)
        )  # (B, H, W, heads, T, C / heads)
        weights = self._drop((q @ k.transpose(-1, -2)).softmax(-1))
        return (weights @ v).permute(0, 4, 1, 2, 3, 5).flatten(-2)  # (B, T, H, W, C)

    def _drop(self, weights: Tensor) -> Tensor:
        return F.dropout(weights, self.dropout, self.training)


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear on the last axis, the width between them `mlp_ratio * dim`."""

    def __init__(
        self, dim: int, mlp_ratio: float, dropout: float = 0.0, identity_init: bool = False
    ) -> None:
        hidden = round(mlp_ratio * dim)
        last = nn.Linear(hidden, dim)
        if identity_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), last, nn.Dropout(dropout)
        )
