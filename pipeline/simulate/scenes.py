"""Procedural scenes in motion: training material without end and without a download.

A scene is two dead-leaves pictures, shapes with power-law sizes and textures that occlude each
other (Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 2001), under smooth
camera motion with rotation and zoom; the nearer one is a cut-out that moves on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..frames.images import RGB

_MARGIN = 0.3
"""Margin of a rendered layer for rotation, zoom and swing, as a share of the longer side."""

_FARTHEST = 0.17
"""Most that a layer of speed 1 travels over half of a clip, in shorter sides of the scene."""

_NEARER = 1.5
"""Speed of the nearer layer, in that of the background."""


@dataclass(frozen=True, slots=True)
class _Motion:
    """Place of a layer at time s in [-1, 1]: smooth, never at rest, never uniform."""

    travel: tuple[float, float]
    """Distance (y, x) that the layer travels over half of the clip, in pixels."""
    bend: tuple[float, float]
    """Amplitude (y, x) of a swing, in pixels."""
    turn: float
    """Rotation over half of the clip, in radians."""
    zoom: float
    """Change of the scale's logarithm over half of the clip."""
    phase: float
    """Phase of the swing, in radians."""

    def reach(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H, W) of a layer large enough for a scene of this size."""
        height, width = (
            int(np.ceil(side + _MARGIN * max(size) + 2 * abs(travel)))
            for side, travel in zip(size, self.travel, strict=True)
        )
        return height, width

    def affine(self, s: float, size: tuple[int, int]) -> tuple[float, ...]:
        """Return Pillow's six coefficients that map scene pixels (x, y) to layer pixels."""
        layer = self.reach(size)
        swing = np.sin(np.pi * s + self.phase)
        y = layer[0] / 2 + self.travel[0] * s + self.bend[0] * swing
        x = layer[1] / 2 + self.travel[1] * s + self.bend[1] * swing
        angle = self.turn * s
        scale = np.exp(self.zoom * s)
        a, b = scale * np.cos(angle), -scale * np.sin(angle)
        centre_y, centre_x = size[0] / 2, size[1] / 2
        along, across = x - a * centre_x - b * centre_y, y + b * centre_x - a * centre_y
        return a, b, along, -b, a, across


def layers_area(fastest: float) -> float:
    """Return the most pixels that both layers of a scene have, in pixels of the scene."""
    return sum((1 + _MARGIN + 2 * _FARTHEST * closer * fastest) ** 2 for closer in (1, _NEARER))


def render_scene(
    rng: np.random.Generator, size: tuple[int, int], length: int, fastest: float = 1.0
) -> Iterator[RGB]:
    """Yield `length` frames (H, W, 3) uint8 of one scene, made from `rng` alone.

    Args:
        rng: source of all randomness.
        size: (H, W) in pixels.
        length: number of frames.
        fastest: largest speed, in the usual speed; half of all scenes stay below its fourth root.
    """
    speed = float(fastest ** rng.random() ** 2)
    far, near = (_motion(rng, min(size), speed * closer) for closer in (1.0, _NEARER))
    background = Image.fromarray(_dead_leaves(rng, far.reach(size), min(size)))
    foreground = Image.fromarray(_dead_leaves(rng, near.reach(size), min(size))).convert("RGBA")
    foreground.putalpha(_cut_out(rng, near.reach(size), min(size)))
    level, contrast = rng.uniform(80, 150), rng.uniform(0.4, 1.0)
    for i in range(length):
        s = 2 * i / max(length - 1, 1) - 1
        frame = _warp(background, far.affine(s, size), size)
        front = _warp(foreground, near.affine(s, size), size)
        frame.paste(front, (0, 0), front)
        pixels = level + np.float32(contrast) * (np.asarray(frame, np.float32) - 128)
        yield np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _motion(rng: np.random.Generator, side: int, speed: float) -> _Motion:
    distance = speed * side * rng.uniform(0.03, _FARTHEST)
    direction = rng.uniform(0, 2 * np.pi)
    swing = side * rng.uniform(0, 0.03, size=2)
    return _Motion(
        travel=(distance * np.sin(direction), distance * np.cos(direction)),
        bend=(float(swing[0]), float(swing[1])),
        turn=rng.uniform(-0.12, 0.12),
        zoom=rng.uniform(-0.08, 0.08),
        phase=rng.uniform(0, 2 * np.pi),
    )


def _warp(layer: Image.Image, affine: tuple[float, ...], size: tuple[int, int]) -> Image.Image:
    return layer.transform(
        (size[1], size[0]), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )


def _cut_out(rng: np.random.Generator, layer: tuple[int, int], side: int) -> Image.Image:
    """Return an alpha mask of one to three smooth blobs near the layer's middle."""
    mask = Image.new("L", (layer[1], layer[0]), 0)
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 4)):
        radius = side * rng.uniform(0.08, 0.26)
        y, x = (extent / 2 + rng.uniform(-0.4, 0.4) * side for extent in layer)
        draw.polygon(_blob(rng, y, x, radius, corners=24, rough=0.2), fill=255)
    return mask


def _dead_leaves(rng: np.random.Generator, shape: tuple[int, int], side: int) -> RGB:
    """Return an (H, W, 3) picture of occluding leaves, drawn twice as large and halved.

    The largest leaves are about as large as `side` pixels.
    """
    height, width = 2 * shape[0], 2 * shape[1]
    clouds = [_cloud(rng, (height, width)) for _ in range(3)]
    canvas = Image.fromarray(_texture(rng, (height, width), clouds))
    side = int(3.8 * side)
    # p(r) ~ r^-3 between the limits makes the picture scale-invariant. So many leaves cover about
    # 95 % of the ground.
    low, high = 0.015 * side, min(0.25 * side, min(height, width) / 3)
    mean_area = np.pi * 0.8 * 2 * low**2 * np.log(high / low)
    radii = (
        low**-2 - rng.random(int(3 * height * width / mean_area)) * (low**-2 - high**-2)
    ) ** -0.5
    draw = ImageDraw.Draw(canvas)
    for radius in radii:
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        corners = int(rng.choice([3, 4, 5, 24]))
        if radius < 2 * low:  # too small to show a texture
            outline = _blob(rng, y, x, radius, corners, rough=0.25)
            draw.polygon(outline, fill=tuple(int(value) for value in _colour(rng)))
            continue
        box_side = min(int(2 * radius * 1.4) + 3, height, width)
        mask = Image.new("L", (box_side, box_side), 0)
        outline = _blob(rng, box_side / 2, box_side / 2, radius, corners, rough=0.25)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        leaf = Image.fromarray(_texture(rng, (box_side, box_side), clouds))
        canvas.paste(leaf, (int(x - box_side / 2), int(y - box_side / 2)), mask)
    return np.asarray(canvas.reduce(2))


def _blob(
    rng: np.random.Generator, y: float, x: float, radius: float, corners: int, rough: float
) -> list[tuple[float, float]]:
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform()) / corners
    wobble = 1 + rough * np.sin(angles * rng.integers(2, 5) + rng.uniform(0, 6.3))
    stretch = rng.uniform(0.6, 1.0)
    tilt = rng.uniform(0, np.pi)
    u, v = radius * wobble * np.cos(angles), radius * stretch * wobble * np.sin(angles)
    xs = x + u * np.cos(tilt) - v * np.sin(tilt)
    ys = y + u * np.sin(tilt) + v * np.cos(tilt)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _colour(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return an RGB colour in [0, 255]; mostly muted, as in photographs."""
    saturation = 0.45 if rng.random() < 0.15 else 0.14
    colour = rng.uniform(15, 235) * (1 + rng.normal(0, saturation, 3))
    return np.clip(colour, 4, 250).astype(np.float32)


def _texture(
    rng: np.random.Generator, shape: tuple[int, int], clouds: list[npt.NDArray[np.float32]]
) -> RGB:
    """Return a colour with shading and, mostly, stripes or noise cut from one of `clouds`."""
    height, width = shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    tilt = rng.normal(0, 0.12, 2).astype(np.float32)
    field = tilt[0] * y + tilt[1] * x
    kind = rng.random()
    if kind < 0.2:
        period = rng.uniform(4, 24)
        angle = rng.uniform(0, np.pi)
        across = y * (height * np.sin(angle) / period) + x * (width * np.cos(angle) / period)
        field = field + np.float32(rng.uniform(0.05, 0.25)) * np.sin(np.float32(np.pi) * across)
    elif kind < 0.8:
        cloud = clouds[rng.integers(len(clouds))]
        top, left = (
            int(rng.integers(0, whole - part + 1))
            for whole, part in zip(cloud.shape, shape, strict=True)
        )
        patch = cloud[top : top + height, left : left + width]
        field = field + np.float32(rng.uniform(0.03, 0.25)) * patch
    tinted = _colour(rng) * (1 + field[..., None])
    return np.clip(tinted, 0, 255).astype(np.uint8)


def _cloud(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return noise (H, W) of about unit variance with equal power in each octave."""
    octaves = 6
    total = rng.standard_normal(shape, np.float32)
    for octave in range(1, octaves):
        rows, columns = (max(int(np.ceil(side / 2**octave)), 2) for side in shape)
        noise = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
        total += np.asarray(noise.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    return np.asarray(total / np.float32(np.sqrt(octaves)))
