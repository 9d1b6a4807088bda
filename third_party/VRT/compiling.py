"""Blocks of the network compiled one by one: one graph serves all blocks of a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .recompute import Recomputable

MOST_KINDS = 512
"""Most graphs of one function, before torch goes on without compiling: the baseline's 80
blocks are of 27 kinds for each size and length of clips."""


class CompilableBlock(Recomputable):
    """A module whose `compute` can be compiled; what it reads of itself must be alike in a kind."""

    _compiled: Callable[..., Tensor] | None = None

    def compute(self, *inputs: Any) -> Tensor:
        """Return what the block makes of its inputs; no random numbers are drawn."""
        raise NotImplementedError

    def computed(self) -> Callable[..., Tensor]:
        """Return `compute`, in training as it is compiled, if it is."""
        compiled = self._compiled if self.training else None
        return compiled or self.compute


def compile_blocks(network: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Have the blocks of a network compiled when they run next in training.

    Blocks of one kind (same shapes, windows and number of channels) share a graph, so a network of
    many blocks is compiled in the time of its kinds. Between the blocks it runs as it is written.

    Args:
        network: with all modules in it.
        backend: as `torch.compile` takes it.
    """
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, MOST_KINDS)
    limits.accumulated_cache_size_limit = max(limits.accumulated_cache_size_limit, 8 * MOST_KINDS)
    for module in network.modules():
        if isinstance(module, CompilableBlock):
            module._compiled = torch.compile(module.compute, dynamic=False, backend=backend)
