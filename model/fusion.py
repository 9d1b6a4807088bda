"""Fusion of spikes into frame features: cross-attention over time at each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .chunked import BaseChunkableAttention, chunk_arguments
from .time_attention import FeedForward, TimeAttention


class MultiScaleTemporalCrossAttnFuse(nn.Module):
    """One `TemporalCrossAttnFuseBlock` a scale, in `fuse_blocks`.

    Args:
        channels_per_scale: Channels at each scale.
        block: heads, dropout, mlp_ratio, chunk_cfg, identity_init; see
            `TemporalCrossAttnFuseBlock`.
    """

    def __init__(self, channels_per_scale: Sequence[int] = (96, 96, 96, 96), **block: Any) -> None:
        super().__init__()
        self.fuse_blocks = nn.ModuleList(
            TemporalCrossAttnFuseBlock(channels, **block) for channels in channels_per_scale
        )

    def forward(self, frames: Sequence[Tensor], spikes: Sequence[Tensor]) -> list[Tensor]:
        """Two lists of (B, T, C, H, W), one a scale -> the fused list."""
        return [
            block(frame, spike)
            for block, frame, spike in zip(self.fuse_blocks, frames, spikes, strict=True)
        ]


class TemporalCrossAttnFuseBlock(BaseChunkableAttention):
    """At each pixel: x = frames + attention(norm(frames) to norm(spikes)), x + ffn(norm(x)).

    Args:
        dim: Channels C of both.
        heads: Attention heads; must divide C.
        dropout: Dropout of attention weights and feed-forward, in training.
        mlp_ratio: Width of the feed-forward over C.
        chunk_cfg: Arguments of `BaseChunkableAttention`, by their names or the YAML's keys.
        identity_init: Start with both output projections at zero: the block returns `frames`
            until it has learnt better.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        dropout: float = 0.0,
        mlp_ratio: float = 2,
        chunk_cfg: Mapping[str, Any] | None = None,
        identity_init: bool = True,
    ) -> None:
        super().__init__(**chunk_arguments(chunk_cfg))
        self.norm_q = nn.LayerNorm(dim)
        self.norm_kv = nn.LayerNorm(dim)
        self.attn = TimeAttention(dim, heads, dropout, identity_init)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, mlp_ratio, dropout, identity_init)

    def forward(self, frames: Tensor, spikes: Tensor) -> Tensor:
        """Fuse.

        Args:
            frames: (B, T, C, H, W), the query.
            spikes: (B, T', C, H, W), key and value.

        Returns:
            (B, T, C, H, W).

        Raises:
            ValueError: Clips, channels or sides differ.
        """
        if frames.shape[:1] + frames.shape[2:] != spikes.shape[:1] + spikes.shape[2:]:
            raise ValueError(
                "expected frame and spike features (B, T, C, H, W) equal but for T, got "
                f"{tuple(frames.shape)} and {tuple(spikes.shape)}"
            )
        pixels = [x.permute(0, 1, 3, 4, 2) for x in (frames, spikes)]  # (B, T, H, W, C)
        return self.in_chunks(self.computed(), *pixels).permute(0, 1, 4, 2, 3)

    def compute(self, frames: Tensor, spikes: Tensor) -> Tensor:
        """(b, T, h, w, C) and (b, T', h, w, C) -> (b, T, h, w, C)."""
        x: Tensor = frames + self.attn(self.norm_q(frames), self.norm_kv(spikes))
        x = x + self.ffn(self.norm_ffn(x))
        return x
