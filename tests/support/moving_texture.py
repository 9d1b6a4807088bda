"""A texture of waves in motion, of which light at any place and time is known in closed form."""

from __future__ import annotations

import math

import torch

from spikedeblur.model.paths import bin_times

SIDE, BINS = 64, 32


def texture(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return light at positions in pixels: a few waves of 6 to 30 pixels."""
    light = torch.full_like(x, 0.5)
    generator = torch.Generator().manual_seed(0)
    for length in (6, 9, 13, 19, 30, 40):
        angle, phase = (torch.rand(2, generator=generator) * 2 * math.pi).tolist()
        light = light + 0.06 * torch.sin(
            2 * math.pi / length * (x * math.cos(angle) + y * math.sin(angle)) + phase
        )
    return light


def moving(velocity: tuple[float, float], bend: tuple[float, float] = (0, 0), scale: int = 1):
    """Return light (1, K, h, w) of a texture that moves, and where pixels are at mid-exposure."""
    at = (torch.arange(SIDE * scale) + 0.5) / scale
    y, x = torch.meshgrid(at, at, indexing="ij")
    planes = [
        texture(x - velocity[0] * t - bend[0] * t * t, y - velocity[1] * t - bend[1] * t * t)
        for t in bin_times(BINS)
    ]
    return torch.stack(planes)[None], texture(x, y)


def inside(x: torch.Tensor, border: int = 10) -> torch.Tensor:
    return x[..., border:-border, border:-border]
