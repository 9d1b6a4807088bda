"""The averaged weights that are validated, kept and used."""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(model: nn.Module) -> nn.Module:
    """Return a copy of the model to hold averaged weights: eval mode, no gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average by 1 - `decay` towards the model; integer buffers are copied."""
    kept = dict(average.state_dict())
    current = {name: value for name, value in model.state_dict().items() if name in kept}
    moving = [name for name, value in kept.items() if value.is_floating_point()]
    torch._foreach_lerp_(
        [kept[name] for name in moving], [current[name] for name in moving], 1 - decay
    )
    for name in kept.keys() - set(moving):
        kept[name].copy_(current[name])
