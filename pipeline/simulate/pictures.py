"""Procedural pictures: what backgrounds and things of a scene look like, and their outlines.

Textures have equal power in each octave, as natural images have. Leaves that occlude each other
have power-law sizes (Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 2001).
Everything is drawn twice as large and halved, so that edges are antialiased.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Plane = npt.NDArray[np.float32]
Shape = tuple[int, int]
Rng = np.random.Generator

_LETTERS = list("ABCDEFGHKLMNOPRSTUVWXZ0123456789")

_TALLEST = 220
"""Most rows of a drawn letter, in pixels."""


class Clouds:
    """Noise of unit variance that all textures of a scene are cut from."""

    def __init__(self, rng: Rng, shape: Shape) -> None:
        """Make noise for pictures up to (H, W) pixels."""
        self._planes = [_cloud(rng, (2 * shape[0], 2 * shape[1])) for _ in range(2)]

    def cut(self, rng: Rng, shape: Shape) -> Plane:
        """Return a piece (H, W)."""
        plane = self._planes[rng.integers(len(self._planes))]
        top, left = (
            int(rng.integers(0, whole - side + 1))
            for whole, side in zip(plane.shape, shape, strict=True)
        )
        return plane[top : top + shape[0], left : left + shape[1]]


def background(rng: Rng, shape: Shape, side: int, clouds: Clouds) -> Image.Image:
    """Return a picture (H, W) to stand behind all things of a scene.

    Args:
        rng: source of all randomness.
        shape: (H, W) in pixels.
        side: shorter side of the scene, in pixels: what a scene shows is in proportion to it.
        clouds: noise of the scene.
    """
    draw = (_leaves, _street, _wall)[rng.choice(3, p=[0.4, 0.4, 0.2])]
    picture = draw(rng, (2 * shape[0], 2 * shape[1]), 2 * side, clouds)
    return _lit(rng, picture.reduce(2), 0.3)


def solid(rng: Rng, side: int, clouds: Clouds) -> Image.Image:
    """Return a ball, a blob or a board (RGBA) in a scene whose shorter side is `side` pixels."""
    radius = side * rng.uniform(0.09, 0.27)
    box = 4 * int(radius * 1.25 + 3)
    shape = (box, box)
    kind = rng.random()
    if kind < 0.5:
        picture = _texture(rng, shape, clouds)
    elif kind < 0.85:
        picture = _leaves(rng, shape, side, clouds)
    else:
        picture = _poster(rng, shape, clouds)
    mask = Image.new("L", shape, 0)
    outline = rng.random()
    if outline < 0.4:
        corners = [box / 2 - 2 * radius, box / 2 + 2 * radius]
        ImageDraw.Draw(mask).ellipse([corners[0], corners[0], corners[1], corners[1]], fill=255)
        picture = _rounded(rng, picture, 2 * radius)
    else:
        corners_of = 24 if outline < 0.7 else int(rng.integers(3, 6))
        polygon = _blob(rng, box / 2, box / 2, 2 * radius, corners_of, rough=0.2)
        ImageDraw.Draw(mask).polygon(polygon, fill=255)
        picture = _lit(rng, picture, 0.3)
    picture.putalpha(mask)
    return picture.reduce(2)


def thin(rng: Rng, side: int, clouds: Clouds) -> Image.Image:
    """Return bars 2 to 4 pixels wide, a lattice, a wheel or lettering (RGBA)."""
    radius = side * rng.uniform(0.16, 0.36)
    box = 4 * int(radius + 4)
    mask = Image.new("L", (box, box), 0)
    draw = (_bars, _lattice, _wheel, _lettering)[rng.integers(4)]
    draw(rng, ImageDraw.Draw(mask), box / 2, 2 * radius)
    picture = _lit(rng, _texture(rng, (box, box), clouds), 0.3)
    picture.putalpha(mask)
    return picture.reduce(2)


def _bars(rng: Rng, draw: ImageDraw.ImageDraw, middle: float, radius: float) -> None:
    angle = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 5)):
        angle += rng.normal(0, 0.3)
        off = rng.uniform(-0.5, 0.5) * radius
        y, x = middle + off * np.cos(angle), middle - off * np.sin(angle)
        _line(draw, y, x, angle, radius, _width(rng))


def _lattice(rng: Rng, draw: ImageDraw.ImageDraw, middle: float, radius: float) -> None:
    width, gap = _width(rng), 2 * rng.uniform(8, 20)
    reach = 0.7 * radius
    both = rng.random() < 0.7
    for off in np.arange(-reach, reach + 1, gap):
        _line(draw, middle + off, middle, 0.0, reach, width)
        if both:
            _line(draw, middle, middle + off, np.pi / 2, reach, width)
    draw.rectangle([middle - reach, middle - reach, middle + reach, middle + reach], None, 255, 6)


def _wheel(rng: Rng, draw: ImageDraw.ImageDraw, middle: float, radius: float) -> None:
    width, spokes = _width(rng), int(rng.integers(3, 8))
    draw.ellipse([middle - radius, middle - radius, middle + radius, middle + radius], None, 255, 8)
    for i in range(spokes):
        _line(draw, middle, middle, np.pi * i / spokes, radius - 2, width)


def _lettering(rng: Rng, draw: ImageDraw.ImageDraw, middle: float, radius: float) -> None:
    letters = int(rng.integers(2, 6))
    _text(rng, draw, (middle, middle), 2 * radius / letters * 1.3, letters, 255)


def _width(rng: Rng) -> int:
    """Return the width of a bar of 2 to 4 pixels, drawn twice as large."""
    return int(rng.integers(4, 9))


def _line(
    draw: ImageDraw.ImageDraw, y: float, x: float, angle: float, half: float, width: int
) -> None:
    dy, dx = half * np.sin(angle), half * np.cos(angle)
    draw.line([x - dx, y - dy, x + dx, y + dy], 255, width)


def _text(
    rng: Rng,
    draw: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    height: float,
    letters: int,
    fill: int | tuple[int, ...],
) -> None:
    text = "".join(rng.choice(_LETTERS, letters))
    font = _font(int(np.clip(height, 6, _TALLEST)))
    draw.text((middle[1], middle[0]), text, fill=fill, font=font, anchor="mm")


@cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=height)


def _leaves(rng: Rng, shape: Shape, side: int, clouds: Clouds) -> Image.Image:
    """Return leaves that occlude each other, the largest a third of `side` pixels in radius."""
    height, width = shape
    canvas = _texture(rng, shape, clouds)
    # p(r) ~ r^-3 between the limits makes the picture scale-invariant.
    low, high = 0.035 * side, min(0.33 * side, min(shape) / 2)
    mean_area = np.pi * 0.8 * 2 * low**2 * np.log(high / low)
    number = int(rng.uniform(0.8, 2.2) * height * width / mean_area)
    radii = (low**-2 - rng.random(number) * (low**-2 - high**-2)) ** -0.5
    draw = ImageDraw.Draw(canvas)
    for radius in radii:
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        corners = int(rng.choice([3, 4, 5, 24, 24, 24]))
        if radius < 2 * low:  # too small to show a texture
            draw.polygon(_blob(rng, y, x, radius, corners, rough=0.25), fill=_fill(_colour(rng)))
            continue
        box = int(2 * radius * 1.3) + 3
        mask = Image.new("L", (box, box), 0)
        outline = _blob(rng, box / 2, box / 2, radius, corners, rough=0.25)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        leaf = _texture(rng, (box, box), clouds)
        canvas.paste(leaf, (int(x - box / 2), int(y - box / 2)), mask)
    return canvas


def _street(rng: Rng, shape: Shape, side: int, clouds: Clouds) -> Image.Image:
    """Return houses with windows and signs between sky and ground."""
    height, width = shape
    sky = _colour(rng, bright=True)
    canvas = _clouded(rng, shape, clouds, sky, rng.uniform(0.03, 0.2), slope=-0.2)
    horizon = int(height * rng.uniform(0.55, 0.75))
    ground = _clouded(rng, (height - horizon, width), clouds, _colour(rng), 0.35, slope=0.2)
    canvas.paste(ground, (0, horizon))
    draw = ImageDraw.Draw(canvas)
    left = -rng.uniform(0, 0.3) * side
    while left < width:
        wide, tall = side * rng.uniform(0.15, 0.5), side * rng.uniform(0.2, 0.9)
        foot = horizon + side * rng.uniform(0, 0.12)
        _house(rng, canvas, draw, (left, foot - tall, left + wide, foot), clouds)
        left += wide * rng.uniform(0.8, 1.3)
    for y in np.sort(rng.uniform(horizon, height, rng.integers(8, 25))):  # nearer things are lower
        radius, x = side * rng.uniform(0.01, 0.07), rng.uniform(0, width)
        outline = _blob(rng, y, x, radius, int(rng.choice([4, 24])), rough=0.2)
        draw.polygon(outline, fill=_fill(_colour(rng)))
    for y in np.sort(rng.uniform(horizon, height, rng.integers(0, 5))):
        x, tall = rng.uniform(0, width), side * rng.uniform(0.2, 0.5)
        draw.line([x, y, x, y - tall], _fill(_colour(rng) * 0.5), int(rng.integers(4, 12)))
        _foliage(rng, draw, (y - tall, x), tall * rng.uniform(0.3, 0.6))
    return canvas


def _foliage(
    rng: Rng, draw: ImageDraw.ImageDraw, middle: tuple[float, float], radius: float
) -> None:
    """Draw a ball of small leaves, brighter above than below."""
    green = _colour(rng) * np.array([0.8, 1.1, 0.6], np.float32)
    number = int(np.clip((radius / 4) ** 2, 20, 400))
    spots = rng.normal(0, 0.4, (number, 2)) * radius
    sizes = rng.uniform(2, 7, (number, 2))
    shades = np.clip(1.1 - 0.5 * spots[:, 0] / radius, 0.4, 1.8) * rng.uniform(0.6, 1.4, number)
    for (y, x), (tall, wide), shade in zip(spots + middle, sizes, shades, strict=True):
        fill = _fill(green * np.float32(shade))
        draw.ellipse([x - wide, y - tall, x + wide, y + tall], fill=fill)


def _house(
    rng: Rng,
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    clouds: Clouds,
) -> None:
    left, top, right, foot = (int(value) for value in box)
    wall = _colour(rng)
    canvas.paste(
        _clouded(rng, (foot - top, right - left), clouds, wall, rng.uniform(0.06, 0.3)), (left, top)
    )
    columns, rows = int(rng.integers(2, 6)), int(rng.integers(2, 8))
    wide, tall = (right - left) / (columns + 0.5), (foot - top) / (rows + 0.5)
    dark, light = _fill(wall * rng.uniform(0.2, 0.6)), _fill(_colour(rng, bright=True))
    lit = rng.uniform(0, 0.5)
    for row in range(rows):
        for column in range(columns):
            x, y = left + (column + 0.5) * wide, top + (row + 0.5) * tall
            pane = [x, y, x + 0.55 * wide, y + 0.6 * tall]
            draw.rectangle(pane, fill=light if rng.random() < lit else dark)
    if rng.random() < 0.5:
        edge = 0.1 * wide
        sign = [left + edge, foot - 1.4 * tall, right - edge, foot - 0.6 * tall]
        draw.rectangle(sign, fill=_fill(_colour(rng)))
        middle = (foot - tall, (left + right) / 2)
        _text(rng, draw, middle, 0.7 * tall, int(rng.integers(3, 8)), light)


def _wall(rng: Rng, shape: Shape, side: int, clouds: Clouds) -> Image.Image:
    """Return bricks or tiles with posters on them."""
    height, width = shape
    canvas = _clouded(rng, shape, clouds, _colour(rng), rng.uniform(0.08, 0.25), slope=0.2)
    draw = ImageDraw.Draw(canvas)
    tall = side * rng.uniform(0.05, 0.2)
    wide, joint = tall * rng.uniform(1, 2.5), max(int(tall * rng.uniform(0.05, 0.2)), 1)
    mortar = _fill(_colour(rng))
    for row in range(int(height / tall) + 1):
        y = row * tall
        for column in range(-1, int(width / wide) + 1):
            x = (column + row % 2 / 2) * wide
            if rng.random() < 0.3:
                shade = _fill(_colour(rng)) if rng.random() < 0.2 else mortar
                draw.rectangle([x + joint, y + joint, x + wide, y + tall], fill=shade)
            draw.line([x, y, x, y + tall], mortar, joint)
        draw.line([0, y, width, y], mortar, joint)
    for _ in range(rng.integers(2, 7)):
        size = tuple(int(side * extent) for extent in rng.uniform(0.15, 0.5, 2))
        place = (int(rng.uniform(-0.1, 0.9) * width), int(rng.uniform(-0.1, 0.9) * height))
        poster = _poster if rng.random() < 0.6 else _texture
        canvas.paste(poster(rng, (size[0], size[1]), clouds), place)
    return canvas


def _poster(rng: Rng, shape: Shape, clouds: Clouds) -> Image.Image:
    """Return lines of letters on paper, with a spot of colour."""
    height, width = shape
    paper = _colour(rng, bright=bool(rng.random() < 0.6))
    picture = _clouded(rng, shape, clouds, paper, 0.05)
    draw = ImageDraw.Draw(picture)
    radius = min(shape) * rng.uniform(0.1, 0.3)
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    draw.polygon(_blob(rng, y, x, radius, 24, rough=0.1), fill=_fill(_colour(rng)))
    ink = _fill(_colour(rng) * (0.3 if paper.mean() > 100 else 2))
    y = 0.1 * height
    while y < 0.9 * height:
        tall = max(height * rng.uniform(0.08, 0.3), 10)
        _text(rng, draw, (y + tall / 2, width / 2), tall, int(1.5 * width / tall) + 1, ink)
        y += 1.1 * tall
    return picture


def _texture(rng: Rng, shape: Shape, clouds: Clouds) -> Image.Image:
    """Return a colour with shading and mostly noise, at times stripes."""
    picture_colour = _colour(rng)
    if rng.random() < 0.75:
        return _clouded(rng, shape, clouds, picture_colour, rng.uniform(0.06, 0.4))
    picture = _clouded(rng, shape, clouds, picture_colour, 0.05)
    draw = ImageDraw.Draw(picture)
    period, angle = rng.uniform(8, 40), rng.uniform(0, np.pi)
    fill = _fill(_colour(rng))
    middle = np.array(shape) / 2
    reach = float(np.hypot(*middle))
    for off in np.arange(-reach, reach, period):
        y, x = middle + off * np.array([np.cos(angle), -np.sin(angle)])
        dy, dx = reach * np.sin(angle), reach * np.cos(angle)
        draw.line([x - dx, y - dy, x + dx, y + dy], fill, int(0.4 * period))
    return picture


def _clouded(
    rng: Rng, shape: Shape, clouds: Clouds, base: Plane, depth: float, slope: float = 0.0
) -> Image.Image:
    """Return a colour with shading, and noise of `depth` in brightness and less in hue."""
    height, width = shape
    y = np.linspace(-1, 1, max(height, 1), dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, max(width, 1), dtype=np.float32)[None, :]
    tilt = (np.array([slope, 0]) + rng.normal(0, 0.12, 2)).astype(np.float32)
    field = 1 + tilt[0] * y + tilt[1] * x + np.float32(depth) * clouds.cut(rng, shape)
    hue = (rng.normal(0, 0.25 * depth, 3)).astype(np.float32)
    pixels = field[..., None] * base
    if depth > 0.1:
        pixels += clouds.cut(rng, shape)[..., None] * (hue * base)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _colour(rng: Rng, bright: bool = False) -> Plane:
    """Return an RGB colour in [0, 255]; mostly muted, warm or cold, as in photographs."""
    value = rng.uniform(120, 220) if bright else 240 * rng.beta(1.1, 1.5)
    if rng.random() < 0.15:
        tint = rng.normal(0, 0.5, 3)
    else:
        warm, green = rng.normal(0.05, 0.18), rng.normal(0, 0.06)
        tint = np.array([warm, green, -warm])
    return np.clip(value * (1 + tint), 6, 250).astype(np.float32)


def _fill(values: Plane) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(values, 0, 255))


def _lit(rng: Rng, picture: Image.Image, depth: float) -> Image.Image:
    """Return a picture in light that varies smoothly over it, brighter here and darker there."""
    shape = (picture.height, picture.width)
    light = np.exp(_resized(depth * rng.standard_normal((3, 3), np.float32), shape))
    pixels = np.asarray(picture, np.float32) * light[..., None]
    return Image.fromarray(np.minimum(pixels, 255).astype(np.uint8))


def _rounded(rng: Rng, picture: Image.Image, radius: float) -> Image.Image:
    """Return a picture shaded as a ball of `radius` pixels in light from one side."""
    y, x = (np.arange(side, dtype=np.float32) + 0.5 - side / 2 for side in (picture.height,) * 2)
    y, x = y[:, None] / np.float32(radius), x[None, :] / np.float32(radius)
    towards = np.sqrt(np.maximum(1 - y * y - x * x, 0))
    angle = rng.uniform(0, 2 * np.pi)
    lit = 0.7 * towards + 0.6 * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y)
    light = np.clip(0.35 + 0.9 * lit, 0.15, 1.6)
    pixels = np.asarray(picture, np.float32) * light[..., None]
    return Image.fromarray(np.minimum(pixels, 255).astype(np.uint8))


def _blob(
    rng: Rng, y: float, x: float, radius: float, corners: int, rough: float
) -> list[tuple[float, float]]:
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform()) / corners
    wobble = 1 + rough * np.sin(angles * rng.integers(2, 5) + rng.uniform(0, 6.3))
    stretch = rng.uniform(0.6, 1.0)
    tilt = rng.uniform(0, np.pi)
    u, v = radius * wobble * np.cos(angles), radius * stretch * wobble * np.sin(angles)
    xs = x + u * np.cos(tilt) - v * np.sin(tilt)
    ys = y + u * np.sin(tilt) + v * np.cos(tilt)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _cloud(rng: Rng, shape: Shape) -> Plane:
    """Return noise (H, W) of about unit variance with equal power in each octave."""
    octaves = 7
    total = rng.standard_normal(shape, np.float32)
    for octave in range(1, octaves):
        rows, columns = (max(int(np.ceil(side / 2**octave)), 2) for side in shape)
        total += _resized(rng.standard_normal((rows, columns), np.float32), shape)
    return np.asarray(total / np.float32(np.sqrt(octaves)))


def _resized(plane: Plane, shape: Shape) -> Plane:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
