"""Tiny data sets, made here from closed forms so that nothing under test makes its own truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.spikes import parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file

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


@pytest.fixture
def make_clip() -> Callable[..., np.ndarray]:
    """Write one raw X4K1000FPS clip; returns its spikes."""

    def make(
        root: Path,
        seq: str = "val/Type1/TEST01_003_f0433",
        *,
        exposure: int = 9,
        centres: tuple[int, ...] = (8, 16, 24),
        frames: int = 33,
        per_frame: int = 4,
        lag: float = 0.0,
        flat: bool = False,
        speed: float = 0.4,
        seed: int = 0,
        side: bool = True,
        sharp: bool = True,
    ) -> np.ndarray:
        split, clip = seq.split("/", 1)

        def image_at(frame: float) -> np.ndarray:
            return texture(frame, seed, flat, speed)

        spikes = record(image_at, (frames - 1) * per_frame + 1, per_frame, lag)
        dat = root / f"{split}_spike_2xds" / clip / "spike.dat"
        dat.parent.mkdir(parents=True, exist_ok=True)
        write_spikes(dat, spikes, parse_geometry(GEOMETRY))
        if side:
            write_side_file(dat, SideFile(geometry=GEOMETRY, rate=1000.0 * per_frame, gain=0.5))
        half = exposure // 2
        for c in centres:
            blur = np.mean([image_at(i) for i in range(c - half, c + half + 1)], axis=0)
            write_gray(root / f"{split}_blurry_{exposure}" / clip / f"{c:04d}.png", blur)
            if sharp:
                write_gray(root / f"{split}_fullRGB" / clip / f"{c:04d}.png", image_at(c))
        return spikes

    return make
