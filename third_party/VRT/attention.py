"""Blocks of windowed attention: self attention, and mutual attention of two frames.

Letters in shape comments: n windows, N tokens of a window, C channels, h heads, c = C / h.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiling import CompilableBlock
from .packed_attention import attend
from .recompute import run
from .windows import Size, WindowPlan, fit_window, plan_windows


class BlockGroup(nn.Module):
    """Blocks one after the other, every second with shifted windows: (B, D, H, W, C)."""

    def __init__(self, dim: int, *, depth: int, drop_path: list[float], **block: Any) -> None:
        super().__init__()
        assert len(drop_path) == depth
        self.blocks = nn.ModuleList(
            Block(dim, shifted=i % 2 == 1, drop_path=drop_path[i], **block) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, D, H, W, C)."""
        for block in self.blocks:
            x = block(x)
        return x


class Block(CompilableBlock):
    """Attention in windows, then a feed-forward part, each with its residual: (B, D, H, W, C).

    Args:
        window: Frames, rows, columns; fitted to the features (see `fit_window`).
        shifted: Whether windows are moved by half their size.
        mutual: Whether the two frames of a window also attend to each other.
        drop_path: Probability of leaving out a branch for a clip, in training.
    """

    def __init__(
        self,
        dim: int,
        *,
        window: Size,
        heads: int,
        shifted: bool,
        mutual: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.mutual = mutual
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, mutual=mutual, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = GEGLU(dim, int(dim * mlp_ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, D, H, W, C)."""
        batch, *size = x.shape[:4]
        window, shift = fit_window(
            (size[0], size[1], size[2]), self.window, self.shifted, self.mutual
        )
        plan = plan_windows((batch, size[0], size[1], size[2]), window, shift, x.device)
        weights = self._branch_weights(x), self._branch_weights(x)
        return run(self.computed(), self.recompute.block, x, plan, *weights)

    def compute(
        self, x: Tensor, plan: WindowPlan, of_attention: Tensor | None, of_mlp: Tensor | None
    ) -> Tensor:
        """Return the features after both branches, each weighted: (B, D, H, W, C)."""
        x = x + _weighted(run(self._attend, self.recompute.attention, x, plan), of_attention)
        return x + _weighted(run(self._feed_forward, self.recompute.feed_forward, x), of_mlp)

    def _attend(self, x: Tensor, plan: WindowPlan) -> Tensor:
        tokens = plan.cut(self.norm1(x))  # (n, N, C)
        return plan.join(self.attn(tokens, plan))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def _branch_weights(self, x: Tensor) -> Tensor | None:
        """Return 0 for clips whose branch is left out, above 1 for the others: (B, 1, 1, 1, 1)."""
        if not self.training or self.drop_path == 0:
            return None
        kept = x.new_empty(len(x), 1, 1, 1, 1).bernoulli_(1 - self.drop_path)
        return kept / (1 - self.drop_path)


def _weighted(branch: Tensor, weights: Tensor | None) -> Tensor:
    return branch if weights is None else branch * weights.to(branch.dtype)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows.

    Self attention has a learned bias for each relative position. In mutual attention each of two
    frames attends to the other, with a fixed sine code of the position.
    """

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, dim: int, window: Size, heads: int, *, mutual: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.window = window
        self.heads = heads
        self.mutual = mutual
        offsets = math.prod(2 * extent - 1 for extent in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        # Both buffers are constants, saved because the published state dict has them.
        self.register_buffer("relative_position_index", relative_position_index(window))
        if mutual:
            self.register_buffer("position_bias", sine_code(window[1], window[2], dim))
        self.qkv_self = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(2 * dim if mutual else dim, dim)
        if mutual:
            self.qkv_mut = nn.Linear(dim, 3 * dim, bias=qkv_bias)

    def forward(self, tokens: Tensor, plan: WindowPlan) -> Tensor:
        """(n, N, C) -> (n, N, C)."""
        attended = self._self_attention(tokens, plan)
        if not self.mutual:
            return self.proj(attended)
        # Both are projected as if they stood side by side, without a copy into one tensor.
        weight_mutual, weight_self = self.proj.weight.chunk(2, 1)
        projected = F.linear(attended, weight_self, self.proj.bias).flatten(0, 1)
        mutual = self._mutual_attention(tokens, plan).flatten(0, 1)  # (n * N, C)
        return torch.addmm(projected, mutual, weight_mutual.t()).view(tokens.shape)

    def _self_attention(self, tokens: Tensor, plan: WindowPlan) -> Tensor:
        qkv = self.qkv_self(tokens).unflatten(-1, (3, self.heads, -1))  # (n, N, 3, h, c)
        return attend(qkv, plan.groups, self._bias(tokens.shape[1])).flatten(2)  # (n, N, C)

    def _mutual_attention(self, tokens: Tensor, plan: WindowPlan) -> Tensor:
        _, rows, columns = plan.window
        half = rows * columns
        # A shrunken window keeps the code of its first rows and columns.
        code = self.position_bias.view(self.window[1], self.window[2], -1)[:rows, :columns]
        frames = tokens.view(-1, 2, half, tokens.shape[-1]) + code.reshape(half, -1)
        qkv = self.qkv_mut(frames.flatten(0, 1))  # (2n, N / 2, 3C)
        qkv = qkv.unflatten(-1, (3, self.heads, -1))  # (2n, N / 2, 3, h, c)
        # The shift's mask is that of the first frame, for both.
        groups = [
            (2 * count, None if mask is None else mask[:half, :half]) for count, mask in plan.groups
        ]
        return attend(qkv, groups, swap=True).reshape(tokens.shape)

    def _bias(self, count: int) -> Tensor:
        """Bias of the relative positions: (h, N, N).

        A shrunken window reads the first rows and columns of the full window's index.
        """
        index = self.relative_position_index[:count, :count]
        bias = self.relative_position_bias_table.t().index_select(1, index.flatten())
        return bias.view(self.heads, count, count)


class GEGLU(nn.Module):
    """Feed-forward part with a gate: `fc2(gelu(fc11 x) * fc12 x)` on the last axis."""

    def __init__(self, dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(dim, hidden)
        self.fc12 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., out_dim)."""
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


def relative_position_index(window: Size) -> Tensor:
    """Return the bias table's row for each pair (query, key) of a window: (N, N) int64."""
    depth, height, width = window
    if _without_values():
        return torch.empty(2 * (math.prod(window),), dtype=torch.int64)
    axes = torch.meshgrid(*(torch.arange(extent) for extent in window), indexing="ij")
    place = torch.stack([axis.flatten() for axis in axes])  # (3, N)
    dz, dy, dx = place[:, :, None] - place[:, None, :]  # (N, N) each, query - key
    row = (dz + depth - 1) * (2 * height - 1) + dy + height - 1
    return row * (2 * width - 1) + dx + width - 1


def sine_code(height: int, width: int, dim: int) -> Tensor:
    """Return the fixed code of each position of a frame's window: (1, H * W, C) float32.

    The first half of the channels codes the row, the second the column.
    """
    if _without_values():
        return torch.empty(1, height * width, dim)
    half = dim // 2
    channel = torch.arange(half)
    period = 10000 ** (2 * (channel // 2) / half)

    def code(count: int) -> Tensor:
        angle = torch.arange(1, count + 1) / (count + 1e-6) * (2 * math.pi)
        phase = angle[:, None] / period  # (count, C / 2)
        return torch.where(channel % 2 == 0, phase.sin(), phase.cos())

    rows = code(height)[:, None].expand(height, width, half)
    columns = code(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], -1).reshape(1, height * width, dim)


def _without_values() -> bool:
    """Whether only shapes are wanted: on torch's device `meta` computing is slow and in vain."""
    return torch.get_default_device().type == "meta"
