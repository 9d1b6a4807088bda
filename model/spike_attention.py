"""Self-attention of spike features over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .chunked import BaseChunkableAttention, chunk_arguments
from .time_attention import FeedForward, TimeAttention


class SpikeTemporalSA(nn.Module):
    """One `SpikeTemporalSelfAttention` a scale.

    Args:
        channels_per_scale: Channels at each scale.
        block: heads, dropout, mlp_ratio, chunk_cfg; see `SpikeTemporalSelfAttention`.
    """

    def __init__(self, channels_per_scale: Sequence[int] = (96, 96, 96, 96), **block: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SpikeTemporalSelfAttention(channels, **block) for channels in channels_per_scale
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One (B, C, T, H, W) a scale -> the same shapes."""
        return [
            block(x.transpose(1, 2)).transpose(1, 2)  # (B, T, C, H, W) in the block
            for block, x in zip(self.blocks, features, strict=True)
        ]


class SpikeTemporalSelfAttention(BaseChunkableAttention):
    """At each pixel: x + attention(norm(x)) among its frames, then x + feed-forward(norm(x)).

    Args:
        dim: Channels C.
        heads: Attention heads; must divide C.
        dropout: Dropout of attention weights and feed-forward, in training.
        mlp_ratio: Width of the feed-forward over C.
        chunk_cfg: Arguments of `BaseChunkableAttention`, by their names or the YAML's keys.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        dropout: float = 0.0,
        mlp_ratio: float = 2,
        chunk_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(**chunk_arguments(chunk_cfg))
        self.norm1 = nn.LayerNorm(dim)
        self.attn = TimeAttention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, mlp_ratio, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> the same."""
        pixels = x.permute(0, 1, 3, 4, 2)  # (B, T, H, W, C)
        return self.in_chunks(self.computed(), pixels).permute(0, 1, 4, 2, 3)

    def compute(self, x: Tensor) -> Tensor:
        """(b, T, h, w, C) -> the same."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x
