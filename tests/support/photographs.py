"""Photographs that packages ship, in motion, written as X4K1000FPS frames.

Natural pictures that no scene of ours resembles, so results on them say what a model learned.
Also a script: `python tests/support/photographs.py OUT [--size 192] [--clips 3] [--length 65]`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

SHIPPED = {
    "china.jpg": ("sklearn.datasets", "images"),
    "flower.jpg": ("sklearn.datasets", "images"),
    "DepartmentStore.jpg": ("mahotas.demos", "data"),
    "luispedro.jpg": ("mahotas.demos", "data"),
    "grace_hopper.jpg": ("matplotlib", "mpl-data/sample_data"),
    "astronaut.png": ("skimage", "data"),
    "chelsea.png": ("skimage", "data"),
    "coffee.png": ("skimage", "data"),
    "motorcycle_left.png": ("skimage", "data"),
    "rocket.jpg": ("skimage", "data"),
}
"""Photographs, the packages that bring them, and the folders they are in."""

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
OTHERS = ("DepartmentStore.jpg", "luispedro.jpg", "grace_hopper.jpg")


def open_photograph(name: str) -> Image.Image:
    """Return a photograph, RGB."""
    package, folder = SHIPPED[name]
    content = files(package).joinpath(folder, name).read_bytes()
    return Image.open(io.BytesIO(content)).convert("RGB")


def moving_frames(
    photograph: str, clip: int, size: tuple[int, int], length: int, *, crops: str = "anywhere"
) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) uint8 of a smooth pan with rotation and zoom over a photograph.

    The camera looks `anywhere`, or near the `centre`, where scikit-learn's photographs are
    sharp to the pixel, finer than spikes of half the size can tell.
    """
    picture = open_photograph(photograph)
    rng = np.random.default_rng([clip, tuple(SHIPPED).index(photograph)])
    height, width = size
    if crops == "centre":
        y, x = rng.uniform(0.42, 0.58) * picture.height, rng.uniform(0.3, 0.7) * picture.width
    speed = rng.uniform(0.25, 0.9)  # pixels a frame: 8 to 30 in an exposure of 33
    direction = rng.uniform(0, 2 * np.pi)
    if crops == "anywhere":
        travel = speed * length / 2
        y = _inside(rng, picture.height, height, travel * abs(np.sin(direction)))
        x = _inside(rng, picture.width, width, travel * abs(np.cos(direction)))
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


def _inside(rng: np.random.Generator, whole: int, part: int, travel: float) -> float:
    """Return where a view may be centred that travels so far to both sides, and sways."""
    margin = min(part / 2 + travel + 12, whole / 2)
    return float(rng.uniform(margin, whole - margin))


def write_x4k1000fps(
    out: Path,
    splits: tuple[str, ...] = ("train", "val", "test"),
    size: tuple[int, int] = (192, 192),
    clips: int = 1,
    length: int = 65,
    suffix: str = ".png",
    crops: str = "anywhere",
    photographs: tuple[str, ...] = PHOTOGRAPHS,
) -> None:
    """Write `out/<split>/<photograph>/<clip>/0000.png...`; no motion occurs in two splits."""
    for number, split in enumerate(splits):
        for photograph in photographs:
            for clip in range(clips):
                folder = out / split / Path(photograph).stem / f"clip{clip}"
                folder.mkdir(parents=True)
                frames = moving_frames(photograph, 100 * number + clip, size, length, crops=crops)
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
