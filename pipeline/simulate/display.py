"""A scene for the eye: lettering and natural textures that pass before each other.

Nothing is trained or scored on it. The scenes that are stay as they were drawn, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..frames.images import RGB
from .scenes import Layer, Motion, draw_layers

SPLIT = "show"
"""The split of these scenes."""

REVISION = 1
"""Number of the way they are drawn: it changes whenever they do."""

_Plane = npt.NDArray[np.float32]
_Shape = tuple[int, int]
_Rng = np.random.Generator

_STREETS = ("LINDEN LANE", "MILL STREET", "QUAY WEST", "ELM TERRACE")
_POSTERS = (
    ("FRESH BREAD", "every day from 6", "Rye  Spelt  Wheat"),
    ("NIGHT TRAIN", "platform 4, 22:47", "Change at Oxley"),
    ("OLD BOOKS", "bought and sold", "Maps  Atlases  Prints"),
)


def render_display(rng: _Rng, size: _Shape, length: int) -> Iterator[RGB]:
    """Yield `length` frames (H, W, 3) uint8 of a brick wall, a poster, leaves and a trunk.

    Args:
        rng: source of all randomness: words, colours and textures, not where things are.
        size: (H, W) in pixels.
        length: number of frames.
    """
    yield from draw_layers(_layers(rng, size), size, length)


def _layers(rng: _Rng, size: _Shape) -> list[Layer]:
    """Return the layers from the back to the front; an exposure is half of the usual clip."""
    height, width = size
    side = min(size)
    wall = _motion((height / 2, width / 2), (0.01 * side, -0.05 * side), bend=0.02 * side)
    poster = _motion((0.66 * height, 0.42 * width), (-0.02 * side, 0.11 * side), turn=0.04)
    leaves = _motion((0.12 * height, 0.9 * width), (0.05 * side, -0.03 * side), turn=-0.12)
    trunk = _motion((height / 2, 0.08 * width), (0.0, 0.08 * side), bend=-0.02 * side)
    return [
        Layer(_wall(rng, wall.reach(size), side), wall),
        Layer(_poster(rng, (int(0.5 * height), int(0.62 * width))), poster),
        Layer(_leaves(rng, (int(0.55 * side), int(0.6 * side)), side), leaves),
        Layer(_trunk(rng, (int(1.3 * height), int(0.14 * side)), side), trunk),
    ]


def _motion(
    place: tuple[float, float], travel: tuple[float, float], bend: float = 0.0, turn: float = 0.0
) -> Motion:
    return Motion(
        place=place,
        travel=travel,
        bend=(0.0, bend),
        swing=(0.0, 0.0),
        pace=1.0,
        turn=turn,
        zoom=0.0,
    )


def _wall(rng: _Rng, shape: _Shape, side: int) -> Image.Image:
    """Return bricks (H, W) with a street's sign above the middle."""
    height, width = (2 * n for n in shape)
    tall = max(int(0.16 * side), 6)
    wide, joint = int(2.4 * tall), max(tall // 8, 2)
    colours = _cloud(rng, (height, width), 0.10)[..., None] * np.array([196, 182, 160], np.float32)
    for row in range(height // tall + 1):
        top, shift = row * tall, (row % 2) * wide // 2
        for left in range(-shift, width, wide):
            brick = np.array([164, 84, 60], np.float32) * np.float32(rng.uniform(0.7, 1.2))
            y = slice(top + joint, min(top + tall, height))
            x = slice(max(left + joint, 0), min(left + wide, width))
            shape_of = colours[y, x].shape[:2]
            if min(shape_of) > 0:
                colours[y, x] = _cloud(rng, shape_of, 0.16)[..., None] * brick
    picture = _picture(colours)
    draw = ImageDraw.Draw(picture)
    middle, tall = (height // 2 - int(0.62 * side), width // 2 - int(0.36 * side)), int(0.3 * side)
    font = _font(0.62 * tall)
    text = str(rng.choice(_STREETS))
    half = draw.textlength(text, font) / 2 + 0.3 * tall
    box = [middle[1] - half, middle[0] - tall / 2, middle[1] + half, middle[0] + tall / 2]
    draw.rounded_rectangle(box, tall / 6, (18, 52, 116), (236, 238, 240), max(tall // 14, 1))
    draw.text((middle[1], middle[0]), text, (240, 242, 244), font, "mm")
    return picture.reduce(2)


def _poster(rng: _Rng, shape: _Shape) -> Image.Image:
    """Return lettering on woven fabric (RGBA)."""
    height, width = (2 * n for n in shape)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    thread = np.float32(2 * np.pi / 7)
    woven = 1 + 0.07 * np.sin(thread * x) * np.sign(np.sin(thread * y / 2))
    woven *= _cloud(rng, (height, width), 0.05) * (1 + 0.08 * np.cos(x * (9 / width)))
    picture = _picture(woven[..., None] * np.array([214, 200, 164], np.float32))
    draw = ImageDraw.Draw(picture)
    lines = _POSTERS[rng.integers(len(_POSTERS))]
    ink = [(122, 24, 32), (32, 34, 40), (20, 70, 62)]
    for text, share, at, fill in zip(lines, (0.3, 0.17, 0.17), (0.25, 0.56, 0.8), ink, strict=True):
        size = share * height
        wide = draw.textlength(text, _font(size))
        font = _font(size * min(0.9 * width / wide, 1.0))
        draw.text((width / 2, at * height), text, fill, font, "mm")
    draw.rectangle([6, 6, width - 7, height - 7], None, ink[0], 4)
    picture.putalpha(Image.new("L", picture.size, 255))
    return _framed(picture).reduce(2)


def _leaves(rng: _Rng, shape: _Shape, side: int) -> Image.Image:
    """Return a branch's leaves (RGBA), bright ones over dark ones."""
    height, width = (2 * n for n in shape)
    picture = Image.new("RGBA", (width, height), (30, 42, 20, 0))
    draw = ImageDraw.Draw(picture)
    for i in range(number := 130):
        depth = i / number
        angle = rng.uniform(0, 2 * np.pi)
        far = 0.44 * np.sqrt(rng.random())
        y, x = height * (0.5 + far * np.sin(angle)), width * (0.5 + far * np.cos(angle))
        long = side * rng.uniform(0.1, 0.16)
        colour = np.array([70, 128, 44]) * (0.35 + 0.95 * depth) * rng.uniform(0.75, 1.25, 3)
        _leaf(draw, (y, x), rng.uniform(0, 2 * np.pi), long, colour)
    return picture.reduce(2)


def _leaf(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    angle: float,
    long: float,
    colour: npt.NDArray[np.float64],
) -> None:
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    t = np.linspace(-1, 1, 13)
    wide = 0.42 * long * (1 - t * t) * (1 - 0.35 * t)
    spine = np.array(middle) + long * t[:, None] * along  # (13, 2)
    edge = np.concatenate([spine + wide[:, None] * across, (spine - wide[:, None] * across)[::-1]])
    fill, vein = (tuple(int(v) for v in np.clip(colour * f, 0, 255)) for f in (1.0, 1.45))
    draw.polygon([(x, y) for y, x in edge], fill=fill)
    draw.line([(x, y) for y, x in spine], vein, 2)
    for i in range(3, 11, 2):
        for sign in (-1, 1):
            tip = spine[i] + 0.14 * long * along + sign * 0.7 * wide[i] * across
            draw.line([spine[i][1], spine[i][0], tip[1], tip[0]], vein, 1)


def _trunk(rng: _Rng, shape: _Shape, side: int) -> Image.Image:
    """Return the bark of a trunk (RGBA): ridges along it, dark between them."""
    height, width = (2 * n for n in shape)
    coarse = rng.standard_normal((max(height // (side // 3), 3), max(width // 8, 3)), np.float32)
    fine = rng.standard_normal((max(height // 12, 3), max(width // 3, 3)), np.float32)
    ridges = np.abs(_resized(coarse, (height, width))) + 0.35 * _resized(fine, (height, width))
    x = np.linspace(-1, 1, width, dtype=np.float32)
    light = np.clip(0.25 + 0.75 * ridges, 0.1, 1.6) * (1.1 - 0.5 * x - 0.45 * x * x)
    picture = _picture(light[..., None] * np.array([142, 116, 92], np.float32))
    picture.putalpha(Image.new("L", picture.size, 255))
    return _framed(picture).reduce(2)


def _framed(picture: Image.Image) -> Image.Image:
    """Return a picture (RGBA) with a clear margin, so that turned edges are antialiased."""
    framed = Image.new("RGBA", (picture.width + 8, picture.height + 8), (0, 0, 0, 0))
    framed.paste(picture, (4, 4))
    return framed


def _cloud(rng: _Rng, shape: _Shape, depth: float) -> _Plane:
    """Return noise (H, W) about 1 with as much power in each of five octaves."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(5):
        rows, columns = (max(-(-n // 2**octave), 2) for n in shape)
        total += _resized(rng.standard_normal((rows, columns), np.float32), (height, width))
    return np.asarray(1 + np.float32(depth / 2) * total, np.float32)


def _resized(plane: _Plane, shape: _Shape) -> _Plane:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _picture(values: _Plane) -> Image.Image:
    pixels = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return pixels.filter(ImageFilter.GaussianBlur(0.6))


def _font(height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(height, 6))
