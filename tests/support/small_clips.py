"""Textures in motion and their spikes, from closed forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 32, 40
GEOMETRY = f"{HEIGHT}x{WIDTH},bottom-up"


def texture(frame: float, seed: int = 0, flat: bool = False, speed: float = 0.4) -> np.ndarray:
    """(H, W) in [0, 1] of a sum of plane waves that moves `speed` spike pixels a frame."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    image = np.full((HEIGHT, WIDTH), 0.5)
    if flat:
        return image
    for _ in range(24):
        fy, fx = rng.uniform(-0.12, 0.12, 2)
        phase = rng.uniform(0, 2 * np.pi)
        image += 0.05 * np.cos(2 * np.pi * (fy * y + fx * (x - speed * frame)) + phase)
    return np.clip(image, 0, 1)


def record(image_at: Callable[[float], np.ndarray], n: int, per_frame: float, lag: float):
    """Spikes (n, H, W) of an integrate-and-fire camera whose sample j sees frame (j-lag)/rate."""
    rng = np.random.default_rng(7)
    total = rng.uniform(0, 2, (HEIGHT, WIDTH))
    spikes = np.zeros((n, HEIGHT, WIDTH), np.uint8)
    for j in range(n):
        total += image_at((j - lag) / per_frame)
        spikes[j] = total >= 2
        total -= 2 * spikes[j]
    return spikes


def write_gray(path: Path, plane: np.ndarray) -> None:
    """Write (H, W) in [0, 1] at twice the size as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    big = np.kron(np.round(plane * 255).astype(np.uint8), np.ones((2, 2), np.uint8))
    Image.fromarray(np.stack([big] * 3, axis=-1)).save(path)
