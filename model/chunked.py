"""Attention over time at each pixel, worked through in chunks so that memory is bounded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import SpikeDeblurError

logger = logging.getLogger(__name__)

ChunkShape = Literal["square", "wide", "tall"]


class ChunkError(SpikeDeblurError):
    """A setting of the chunks is impossible."""


class Chunk(NamedTuple):
    """Largest part that is worked through at once."""

    clips: int
    rows: int
    columns: int


class BaseChunkableAttention(nn.Module):
    """Base of blocks that treat every pixel by itself and mix only its frames.

    Pixels don't meet, so cutting the map changes no result: only how much is in memory at
    once. A map that holds within `max_batch_tokens` is not cut.

    Args:
        adaptive_chunk: Cut by `max_batch_tokens`. False: always `chunk_size` squared.
        max_batch_tokens: Limit of clips * rows * columns in a chunk (frames not counted).
        chunk_size: Side of a chunk in pixels; with `adaptive_chunk`, at most its square.
        chunk_shape: "square", "wide" (rows : columns as 1 : 4) or "tall" (4 : 1).
        use_checkpoint: Recompute each chunk in the backward pass, so that training holds the
            activations of one chunk at a time.

    Raises:
        ChunkError: A number is below 1 or the shape has another name.
    """

    def __init__(
        self,
        *,
        adaptive_chunk: bool = True,
        max_batch_tokens: int = 49152,
        chunk_size: int = 64,
        chunk_shape: ChunkShape = "square",
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if max_batch_tokens < 1 or chunk_size < 1:
            raise ChunkError(
                "expected max_batch_tokens and chunk_size of at least 1, got "
                f"{max_batch_tokens} and {chunk_size}"
            )
        if chunk_shape not in ("square", "wide", "tall"):
            raise ChunkError(f"expected chunk_shape square, wide or tall, got {chunk_shape!r}")
        self.adaptive_chunk = adaptive_chunk
        self.max_batch_tokens = max_batch_tokens
        self.chunk_size = chunk_size
        self.chunk_shape = chunk_shape
        self.use_checkpoint = use_checkpoint
        self._logged: set[tuple[int, int, int]] = set()

    def choose_chunk(self, clips: int, rows: int, columns: int) -> Chunk:
        """Return the chunk for maps of this size."""
        if not self.adaptive_chunk:
            return Chunk(clips, min(self.chunk_size, rows), min(self.chunk_size, columns))
        if clips * rows * columns <= self.max_batch_tokens:
            return Chunk(clips, rows, columns)
        at_once = min(clips, self.max_batch_tokens)
        pixels = min(self.max_batch_tokens // at_once, self.chunk_size**2)
        long = max(1, math.isqrt(4 * pixels)) if self.chunk_shape != "square" else 0
        if self.chunk_shape == "wide":
            width = min(long, pixels, columns)
            height = min(pixels // width, rows)
        elif self.chunk_shape == "tall":
            height = min(long, pixels, rows)
            width = min(pixels // height, columns)
        else:
            height = min(math.isqrt(pixels), rows)
            width = min(pixels // height, columns)
        return Chunk(at_once, height, width)

    def in_chunks(self, block: Callable[..., Tensor], *features: Tensor) -> Tensor:
        """Apply a per-pixel function chunk by chunk.

        Args:
            block: Takes as many tensors (b, T, h, w, C) as there are `features`, returns one
                of the first one's shape.
            features: Tensors (B, T, H, W, C) of one B, H, W.

        Returns:
            (B, T, H, W, C).
        """
        clips, _, rows, columns, _ = features[0].shape
        chunk = self.choose_chunk(clips, rows, columns)
        if (clips, rows, columns) not in self._logged:
            self._logged.add((clips, rows, columns))
            logger.debug(
                "%s: %d clips of %dx%d pixels in chunks of %d clips, %dx%d pixels",
                type(self).__name__,
                clips,
                rows,
                columns,
                *chunk,
            )
        if chunk == (clips, rows, columns):
            return self._run(block, features)
        clips_done = []
        for b in _cuts(clips, chunk.clips):
            rows_done = []
            for r in _cuts(rows, chunk.rows):
                parts = [
                    self._run(block, [f[b, :, r, c] for f in features])
                    for c in _cuts(columns, chunk.columns)
                ]
                rows_done.append(torch.cat(parts, dim=3))
            clips_done.append(torch.cat(rows_done, dim=2))
        return torch.cat(clips_done)  # (B, T, H, W, C)

    def _run(self, block: Callable[..., Tensor], features: Sequence[Tensor]) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(block, *features, use_reentrant=False)
            return recomputed
        return block(*features)


def _cuts(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
