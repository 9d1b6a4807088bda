"""Parts of the network are computed again in the backward pass, where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True)
class Recompute:
    """Which parts are computed twice, so that only their inputs are kept; no result changes.

    The inputs of a part inside another are kept only while the outer part's gradient is computed.
    """

    attention: bool = False
    """Attention of each block, with its cutting and joining of windows."""
    feed_forward: bool = False
    """Feed-forward of each block."""
    warping: bool = False
    """Flow networks, and the alignment of each stage with the layers that take it in."""
    block: bool = False
    """Each block as a whole."""
    stage: bool = False
    """The blocks of each stage and of each reconstruction group, together."""

    def __str__(self) -> str:
        parts = [field.name for field in fields(self) if getattr(self, field.name)]
        return ", ".join(parts) or "nothing"


class Recomputable(nn.Module):
    """A module with parts that `set_recompute` can have computed twice."""

    recompute = Recompute()


def set_recompute(network: nn.Module, recompute: Recompute) -> None:
    """Choose what a network recomputes, with all modules in it."""
    for module in network.modules():
        if isinstance(module, Recomputable):
            module.recompute = recompute


def run(part: Callable[..., Tensor], recompute: bool, *inputs: Any) -> Tensor:
    """Return `part(*inputs)`; with `recompute`, its backward pass computes it again."""
    if recompute and torch.is_grad_enabled():
        result: Tensor = checkpoint(part, *inputs, use_reentrant=False)
        return result
    return part(*inputs)
