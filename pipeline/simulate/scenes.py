"""Procedural scenes in motion: training material without end and without a download.

Two to five things pass before each other and before a background. Each moves on its own bent path,
spins and grows; some are thin, some stand still, some enter or leave the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..frames.images import RGB
from .pictures import Clouds, background, solid, thin

REVISION = 2
"""Number of the way scenes are drawn: it changes whenever they do."""

_MARGIN = 0.25
"""Margin of a background for rotation and zoom, as a share of the scene's longer side."""

_PATH = (0.05, 0.22)
"""Least and most that a thing of speed 1 travels over half of a clip, in shorter sides."""

_FARTHEST_BEHIND = 0.16
"""Most that a background of speed 1 travels over half of a clip, in shorter sides."""

_BEND, _SWING = 0.8, 0.15
"""Most acceleration, and amplitude of a swing, in the length of the path."""

_SLOW, _STILL = 0.08, 0.02
"""Shares of scenes that move by less than 3 pixels in half of a clip, and not at all."""


@dataclass(frozen=True, slots=True)
class Motion:
    """The place of a layer at time s in [-1, 1] of the clip."""

    place: tuple[float, float]
    """(y, x) of the layer's middle in the scene at s = 0, in pixels."""
    travel: tuple[float, float]
    """Velocity (y, x), in pixels for half of the clip."""
    bend: tuple[float, float]
    """Acceleration (y, x), in pixels for the square of half of the clip."""
    swing: tuple[float, float]
    """Amplitude (y, x) of a swing beside the path, in pixels."""
    pace: float
    """Angular frequency of the swing, in radians for half of the clip."""
    turn: float
    """Rotation over half of the clip, in radians."""
    zoom: float
    """Change of the scale's logarithm over half of the clip."""

    def middle(self, s: float) -> tuple[float, float]:
        """Return (y, x) of the layer's middle in the scene, in pixels."""
        swing = np.sin(self.pace * s)
        y, x = (
            float(place + travel * s + bend * s * s / 2 + amplitude * swing)
            for place, travel, bend, amplitude in zip(
                self.place, self.travel, self.bend, self.swing, strict=True
            )
        )
        return y, x

    def reach(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H, W) of a layer large enough to stay behind a scene of this size."""
        places = np.array([self.middle(s) for s in np.linspace(-1, 1, 65)])
        moved = np.abs(places - np.array(size) / 2).max(axis=0)
        scale = np.exp(abs(self.zoom))
        height, width = (
            int(np.ceil(side + _MARGIN * max(size) + 2 * scale * (far + 1)))
            for side, far in zip(size, moved, strict=True)
        )
        return height, width

    def affine(self, s: float, layer: tuple[int, int]) -> tuple[float, ...]:
        """Return Pillow's six coefficients that map scene pixels (x, y) to pixels of a layer."""
        y, x = self.middle(s)
        angle, scale = self.turn * s, np.exp(-self.zoom * s)
        a, b = float(scale * np.cos(angle)), float(scale * np.sin(angle))
        height, width = layer
        return a, b, width / 2 - a * x - b * y, -b, a, height / 2 + b * x - a * y


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture on its way, opaque or with an outline (RGBA)."""

    picture: Image.Image
    motion: Motion

    def draw(self, frame: Image.Image, s: float) -> None:
        """Draw the part that is seen into a frame."""
        height, width = self.picture.height, self.picture.width
        a, b, along, d, e, across = self.motion.affine(s, (height, width))
        y, x = self.motion.middle(s)
        shrunk = a * a + b * b
        wide, tall = (
            (abs(a) * one + abs(b) * other) / shrunk / 2 + 1
            for one, other in ((width, height), (height, width))
        )
        left, top = max(int(x - wide), 0), max(int(y - tall), 0)
        right, low = min(int(x + wide) + 1, frame.width), min(int(y + tall) + 1, frame.height)
        if left >= right or top >= low:
            return
        moved = (a, b, along + a * left + b * top, d, e, across + d * left + e * top)
        seen = self.picture.transform(
            (right - left, low - top), Image.Transform.AFFINE, moved, Image.Resampling.BICUBIC
        )
        frame.paste(seen, (left, top), seen if seen.mode == "RGBA" else None)


def layers_area(fastest: float) -> float:
    """Return the most pixels that the background of a scene has, in pixels of the scene."""
    farthest = _FARTHEST_BEHIND * (1 + _BEND / 2 + _SWING) * fastest
    return float((1 + _MARGIN + 2 * farthest) ** 2)


def render_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    length: int,
    fastest: float = 1.0,
    *,
    speed: float | None = None,
) -> Iterator[RGB]:
    """Yield `length` frames (H, W, 3) uint8 of one scene, made from `rng` alone.

    Args:
        rng: source of all randomness.
        size: (H, W) in pixels.
        length: number of frames.
        fastest: largest speed, in the usual speed; half of all scenes stay below its fourth root.
        speed: speed of all that moves, the background among it, in the usual speed; None: drawn.
    """
    yield from draw_layers(_layers(rng, size, fastest, speed), size, length)


def draw_layers(layers: Sequence[Layer], size: tuple[int, int], length: int) -> Iterator[RGB]:
    """Yield `length` frames (H, W, 3) uint8 of layers, the first of which is at the back."""
    for i in range(length):
        s = 2 * i / max(length - 1, 1) - 1
        frame = Image.new("RGB", (size[1], size[0]))
        for layer in layers:
            layer.draw(frame, s)
        yield np.asarray(frame)


def _layers(
    rng: np.random.Generator, size: tuple[int, int], fastest: float, given: float | None = None
) -> list[Layer]:
    """Return the layers of a scene, from the back to the front; `given` is its speed."""
    side = min(size)
    speed = float(fastest ** rng.random() ** 2)
    kind = rng.random()
    if kind < _STILL:
        speed = 0.0
    elif kind < _STILL + _SLOW:
        speed = min(3 * rng.random() / (_PATH[1] * side), 1.0)
    camera_rests = rng.random() < 0.15 and given is None
    speed = speed if given is None else given
    far = _motion(
        rng,
        (size[0] / 2, size[1] / 2),
        side * rng.uniform(_PATH[0], _FARTHEST_BEHIND),
        0.0 if camera_rests else speed,
        turn=0.12,
    )
    exposure = _exposure(rng)
    shape = far.reach(size)
    clouds = Clouds(rng, shape)
    layers = [Layer(background(rng, shape, side, clouds).point(exposure), far)]
    for _ in range(rng.choice([2, 3, 4, 5], p=[0.15, 0.25, 0.3, 0.3])):
        slender = rng.random() < 0.45
        picture = (thin if slender else solid)(rng, side, clouds)
        picture = picture.point([*exposure, *range(256)])
        path = side * rng.uniform(*_PATH)
        own = 0.0 if rng.random() < 0.15 and not camera_rests else speed
        turn = 0.4 if slender else 0.9
        layers.append(Layer(picture, _motion(rng, _place(rng, size), path, own, turn)))
    return layers


def _place(rng: np.random.Generator, size: tuple[int, int]) -> tuple[float, float]:
    """Return (y, x) of a thing in the middle of the clip; a quarter are at the picture's edge."""
    place = np.clip(rng.normal(0.5, 0.2, 2), 0.1, 0.9)
    if rng.random() < 0.25:
        place[rng.integers(2)] = rng.choice([-0.02, 1.02])
    return float(place[0] * size[0]), float(place[1] * size[1])


def _motion(
    rng: np.random.Generator,
    place: tuple[float, float],
    path: float,
    speed: float,
    turn: float,
) -> Motion:
    """Return a bent path, at speed 1 of `path` pixels in half of a clip, turned up to `turn`."""
    length, direction = speed * path, rng.uniform(0, 2 * np.pi)
    bend = length * rng.uniform(-_BEND, _BEND, 2)
    swing = length * rng.uniform(-_SWING, _SWING, 2)
    calm = min(speed, 1.0)
    return Motion(
        place=place,
        travel=(float(length * np.sin(direction)), float(length * np.cos(direction))),
        bend=(float(bend[0]), float(bend[1])),
        swing=(float(swing[0]), float(swing[1])),
        pace=rng.uniform(2, 6),
        turn=calm * rng.uniform(-turn, turn),
        zoom=calm * rng.uniform(-0.08, 0.08),
    )


def _exposure(rng: np.random.Generator) -> list[int]:
    """Return what a picture's values become, 3 x 256: a scene may be dark, flat or too bright."""
    kind = rng.random()
    gain = rng.uniform(0.8, 1.15)
    if kind < 0.1:
        gain = rng.uniform(0.35, 0.6)
    elif kind > 0.8:
        gain = rng.uniform(1.15, 1.35)
    contrast, level = rng.uniform(0.6, 1.1), rng.uniform(80, 130)
    values = gain * (level + contrast * (np.arange(256) - level))
    return [int(value) for value in np.clip(values + 0.5, 0, 255)] * 3
