"""scikit-learn's two sample photographs in motion, written as X4K1000FPS frames.

Natural pictures that no scene of ours resembles, so results on them say what a model learned.
Also a script: `python tests/support/photographs.py OUT [--size 192] [--clips 3] [--length 65]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def moving_frames(
    photograph: str, clip: int, size: tuple[int, int], length: int
) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) uint8 of a smooth pan with rotation and zoom over a photograph."""
    picture = Image.fromarray(load_sample_image(photograph))  # 427x640
    rng = np.random.default_rng([clip, PHOTOGRAPHS.index(photograph)])
    height, width = size
    y, x = rng.uniform(0.42, 0.58) * picture.height, rng.uniform(0.3, 0.7) * picture.width
    speed = rng.uniform(0.25, 0.9)  # pixels a frame: 8 to 30 in an exposure of 33
    direction = rng.uniform(0, 2 * np.pi)
    turn, zoom = rng.uniform(-0.0015, 0.0015), rng.uniform(-0.001, 0.001)
    for i in range(length):
        s = i - length // 2
        sway = 3 * np.sin(s / 11 + clip)
        a = np.exp(zoom * s) * np.cos(turn * s)
        b = -np.exp(zoom * s) * np.sin(turn * s)
        at_x = x + speed * s * np.cos(direction) + sway
        at_y = y + speed * s * np.sin(direction)
        affine = (
            a,
            b,
            at_x - a * width / 2 - b * height / 2,
            -b,
            a,
            at_y + b * width / 2 - a * height / 2,
        )
        frame = picture.transform(
            (width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
        )
        yield np.asarray(frame)


def write_x4k1000fps(
    out: Path,
    splits: tuple[str, ...] = ("train", "val", "test"),
    size: tuple[int, int] = (192, 192),
    clips: int = 1,
    length: int = 65,
    suffix: str = ".png",
) -> None:
    """Write `out/<split>/<photograph>/<clip>/0000.png...`; no motion occurs in two splits."""
    for number, split in enumerate(splits):
        for photograph in PHOTOGRAPHS:
            for clip in range(clips):
                folder = out / split / Path(photograph).stem / f"clip{clip}"
                folder.mkdir(parents=True)
                frames = moving_frames(photograph, 100 * number + clip, size, length)
                for i, frame in enumerate(frames):
                    Image.fromarray(frame).save(folder / f"{i:04d}{suffix}", compress_level=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--length", type=int, default=65)
    options = parser.parse_args()
    write_x4k1000fps(
        options.out,
        size=(options.size, options.size),
        clips=options.clips,
        length=options.length,
    )
