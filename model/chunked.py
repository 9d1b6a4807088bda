"""Attention over time at each pixel, worked through in chunks so that memory is bounded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import SpikeDeblurError
from ..third_party.VRT.compiling import CompilableBlock
from ..third_party.VRT.recompute import run

logger = logging.getLogger(__name__)

HELD_AT_ONCE = 8
"""Maps of the inputs' size that a block holds at its peak: queries, keys, values, hidden layer."""

ChunkShape = Literal["square", "wide", "tall"]


class ChunkError(SpikeDeblurError):
    """A setting of the chunks is impossible."""


def chunk_arguments(chunk_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of `BaseChunkableAttention`, from their names or the YAML's keys.

    Args:
        chunk_cfg: such as `{"CHUNK_SIZE": 64}` or `{"chunk_size": 64}`; None: the defaults.
    """
    return {name.lower(): value for name, value in (chunk_cfg or {}).items()}


class Chunk(NamedTuple):
    """Largest part of a map that is worked through at once."""

    clips: int
    rows: int
    columns: int


class BaseChunkableAttention(CompilableBlock):
    """Base of blocks that treat every pixel by itself and mix only its frames.

    Pixels don't meet, so cutting the map changes no result, only how much is in memory at
    once. A map that fits `max_chunk_mb` and `max_batch_tokens` is not cut. Where attention is
    recomputed, training holds the activations of one chunk at a time.

    Args:
        adaptive_chunk: Cut by the two limits. False: always `chunk_size` squared.
        max_chunk_mb: Limit of what a chunk's attention and feed-forward hold at once, in MB.
        max_batch_tokens: Limit of clips * rows * columns in a chunk (frames not counted).
        chunk_size: Side of a chunk in pixels; with `adaptive_chunk`, at most its square.
        chunk_shape: "square", "wide" (rows : columns as 1 : 4) or "tall" (4 : 1).

    Raises:
        ChunkError: A limit allows nothing, or the shape has another name.
    """

    def __init__(
        self,
        *,
        adaptive_chunk: bool = True,
        max_chunk_mb: float = 64,
        max_batch_tokens: int = 49152,
        chunk_size: int = 64,
        chunk_shape: ChunkShape = "square",
    ) -> None:
        super().__init__()
        if max_chunk_mb <= 0 or min(max_batch_tokens, chunk_size) < 1:
            raise ChunkError(
                "expected max_chunk_mb above 0, and max_batch_tokens and chunk_size of at least "
                f"1, got {max_chunk_mb}, {max_batch_tokens} and {chunk_size}"
            )
        if chunk_shape not in ("square", "wide", "tall"):
            raise ChunkError(f"expected chunk_shape square, wide or tall, got {chunk_shape!r}")
        self.adaptive_chunk = adaptive_chunk
        self.max_chunk_bytes = round(max_chunk_mb * 10**6)
        self.max_batch_tokens = max_batch_tokens
        self.chunk_size = chunk_size
        self.chunk_shape = chunk_shape
        self._logged: set[tuple[int, int, int]] = set()

    def choose_chunk(self, clips: int, rows: int, columns: int, pixel_bytes: int = 1) -> Chunk:
        """Return the chunk for maps of this size.

        Args:
            clips, rows, columns: Size of the maps.
            pixel_bytes: What the block holds at once for each pixel.
        """
        if not self.adaptive_chunk:
            return Chunk(clips, min(self.chunk_size, rows), min(self.chunk_size, columns))
        limit = min(self.max_batch_tokens, max(1, self.max_chunk_bytes // pixel_bytes))
        if clips * rows * columns <= limit:
            return Chunk(clips, rows, columns)
        at_once = min(clips, limit)
        pixels = min(limit // at_once, self.chunk_size**2)
        # Rows : columns are 1 : 1, 1 : 4 or 4 : 1; what the first side leaves is the other's.
        if self.chunk_shape == "wide":
            width = min(math.isqrt(4 * pixels), pixels, columns)
            return Chunk(at_once, min(pixels // width, rows), width)
        ratio = 4 if self.chunk_shape == "tall" else 1
        height = min(math.isqrt(ratio * pixels), pixels, rows)
        return Chunk(at_once, height, min(pixels // height, columns))

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
        held = sum(f.shape[1] * f.shape[4] * f.element_size() for f in features)
        chunk = self.choose_chunk(clips, rows, columns, HELD_AT_ONCE * held)
        if not torch.compiler.is_compiling() and (clips, rows, columns) not in self._logged:
            self._logged.add((clips, rows, columns))
            form = "%s: %d clips of %dx%d pixels in chunks of %d clips, %dx%d pixels"
            logger.debug(form, type(self).__name__, clips, rows, columns, *chunk)
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
        return run(block, self.recompute.attention, *features)


def _cuts(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
