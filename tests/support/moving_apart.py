"""Scenes in which things move apart, with their true motion: photographs before photographs.

Two sets share neither photograph nor stream of random numbers: constants are chosen on `TUNING`,
results are told on `JUDGING`. Each has two parts. *disc*: a disc with another photograph spins on a
bent path before a background that moves, rotates and zooms. *hard*: two to four things over each
other, one thin, one still, one that leaves the picture.

Also a script: `python tests/support/moving_apart.py OUT [--set judging] [--part disc]`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photographs import open_photograph
from PIL import Image, ImageDraw, ImageFont

SIZE = 192
"""Rows and columns of a frame, in pixels."""
LENGTH = 65
"""Frames of a scene: three exposures of 33, 15 apart."""
EXPOSURE = 33
SCENES = 15
"""Scenes of each part of a set."""
PARTS = ("disc", "hard")

TUNING = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
JUDGING = ("china.jpg", "flower.jpg", "DepartmentStore.jpg", "luispedro.jpg", "grace_hopper.jpg")
SETS = {"tuning": TUNING, "judging": JUDGING}

REGIONS = ("inside", "edge, on the thing", "edge, behind it", "border", "still", "background")
"""Names of the numbers in `Scene.regions`."""

_SWEPT = 3  # pixels around what an edge sweeps
_STILL = 0.5  # pixels that still things may move within an exposure
_MARGIN = 260  # pixels by which pictures are continued as in a mirror

Plane = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """The place of a thing over time. Time is in exposures, from the scene's middle frame on."""

    place: tuple[float, float]
    """Column and row of the thing's centre at the middle frame, in pixels."""
    velocity: tuple[float, float]
    """Pixels an exposure."""
    bend: tuple[float, float]
    """Acceleration, pixels an exposure squared."""
    sway: tuple[float, float]
    """Amplitude of a swing beside it, in pixels."""
    pace: float
    """Angular frequency of the swing, radians an exposure."""
    turn: float
    """Rotation, radians an exposure."""
    zoom: float
    """Growth, natural logarithm an exposure."""

    def matrix(self, frame: float) -> Plane:
        """Return (3, 3): from the thing's own pixels, about its centre, to the frame's."""
        time = (frame - LENGTH // 2) / EXPOSURE
        swing = np.sin(self.pace * time)
        x, y = (
            self.place[i]
            + self.velocity[i] * time
            + self.bend[i] * time**2 / 2
            + self.sway[i] * swing
            for i in (0, 1)
        )
        size, angle = np.exp(self.zoom * time), self.turn * time
        cosine, sine = size * np.cos(angle), size * np.sin(angle)
        return np.array([[cosine, -sine, x], [sine, cosine, y], [0, 0, 1]])


@dataclass(frozen=True)
class Layer:
    """A thing: a piece of a photograph in a shape, on its way."""

    picture: Image.Image
    mask: Image.Image | None
    """Opacity, of the picture's size; None: all of it."""
    motion: Motion

    def drawn(self, image: Image.Image, frame: float) -> npt.NDArray[np.float64]:
        """Return the picture, or the mask, as a camera sees it in a frame, 0 to 1."""
        centre = np.array([[1, 0, image.width / 2], [0, 1, image.height / 2], [0, 0, 1]])
        back = centre @ np.linalg.inv(self.motion.matrix(frame))
        seen = image.transform(
            (SIZE, SIZE),
            Image.Transform.AFFINE,
            tuple(back[:2].ravel()),
            Image.Resampling.BICUBIC,
        )
        return np.asarray(seen, np.float64) / 255

    def opacity(self, frame: float) -> Plane:
        """Return (H, W), 0 to 1."""
        if self.mask is None:
            return np.ones((SIZE, SIZE))
        return self.drawn(self.mask, frame)


@dataclass(frozen=True)
class Scene:
    """Layers, from the back to the front."""

    name: str
    layers: tuple[Layer, ...]

    def frame(self, frame: float) -> npt.NDArray[np.uint8]:
        """Return (H, W, 3) RGB."""
        seen = np.zeros((SIZE, SIZE, 3))
        for layer in self.layers:
            opacity = layer.opacity(frame)[..., None]
            seen += opacity * (layer.drawn(layer.picture, frame) - seen)
        return np.rint(255 * seen.clip(0, 1)).astype(np.uint8)

    def labels(self, frame: float) -> npt.NDArray[np.int64]:
        """Return (H, W): the number of the layer that is seen at each pixel."""
        seen = np.zeros((SIZE, SIZE), np.int64)
        for number, layer in enumerate(self.layers):
            seen[layer.opacity(frame) > 0.5] = number
        return seen

    def shift(self, frame: float, centre: int) -> Plane:
        """Return the true motion (2, H, W): columns, then rows, from `centre` to `frame`."""
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        at = np.stack([columns, rows, np.ones_like(rows)])  # (3, H, W)
        labels = self.labels(centre)
        shift = np.empty((2, SIZE, SIZE))
        for number, layer in enumerate(self.layers):
            there = layer.motion.matrix(frame) @ np.linalg.inv(layer.motion.matrix(centre))
            moved = np.einsum("ij,jhw->ihw", there, at)[:2] - at[:2]
            shift[:, labels == number] = moved[:, labels == number]
        return shift

    def regions(self, centre: int) -> npt.NDArray[np.int64]:
        """Return (H, W): the number of each pixel's region in `REGIONS`, over an exposure."""
        half = EXPOSURE // 2
        labels = self.labels(centre)
        swept, leaves = np.zeros((2, SIZE, SIZE), bool)
        furthest = np.zeros((SIZE, SIZE))
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        for frame in range(centre - half, centre + half + 1):
            swept |= self.labels(frame) != labels
            x, y = self.shift(frame, centre)
            furthest = np.maximum(furthest, np.hypot(x, y))
            leaves |= (np.abs(columns + x - SIZE / 2) > SIZE / 2) | (
                np.abs(rows + y - SIZE / 2) > SIZE / 2
            )
        swept = _grown(swept, _SWEPT)
        regions = np.where(labels > 0, 0, 5)
        regions[leaves] = 3
        regions[furthest < _STILL] = 4
        regions[swept & (labels > 0)] = 1
        regions[swept & (labels == 0)] = 2
        return regions


def _grown(mask: npt.NDArray[np.bool_], pixels: int) -> npt.NDArray[np.bool_]:
    for axis in (0, 1):
        padded = np.pad(mask, [(pixels, pixels) if axis == i else (0, 0) for i in (0, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * pixels + 1, axis)
        mask = windows.any(-1)
    return mask


def scenes(kind: str, part: str) -> Iterator[Scene]:
    """Yield the scenes of a part of a set."""
    for number in range(SCENES):
        stream = number + 100 * PARTS.index(part)
        rng = np.random.default_rng([tuple(SETS).index(kind), stream])
        make = _disc if part == "disc" else _hard
        yield Scene(f"{part}{number:02d}", make(rng, SETS[kind]))


def _disc(rng: np.random.Generator, photographs: tuple[str, ...]) -> tuple[Layer, ...]:
    behind, before = rng.choice(photographs, 2, replace=False)
    place = tuple(rng.uniform(0.35, 0.65, 2) * SIZE)
    disc = Layer(
        *_piece(rng, before, _disc_mask(rng.uniform(24, 48))),
        _motion(rng, place, length=(10, 40), turn=0.9),
    )
    return _background(rng, behind), disc


def _hard(rng: np.random.Generator, photographs: tuple[str, ...]) -> tuple[Layer, ...]:
    names = rng.permutation(photographs)
    still = Motion(
        place=(SIZE / 2, SIZE / 2),
        velocity=(0, 0),
        bend=(0, 0),
        sway=(0, 0),
        pace=0,
        turn=0,
        zoom=0,
    )
    thin = _lattice_mask(rng) if rng.random() < 0.5 else _lettering_mask(rng)
    place = tuple(rng.uniform(0.35, 0.65, 2) * SIZE)
    lattice = Layer(*_piece(rng, names[1], thin), _motion(rng, place, length=(8, 30), turn=0.3))
    # It crosses the picture's edge in the middle frame, and goes on outwards.
    angle = rng.uniform(0, 2 * np.pi)
    outwards = np.array([np.cos(angle), np.sin(angle)])
    edge = SIZE / 2 + outwards * SIZE / 2 / np.abs(outwards).max() * rng.uniform(0.75, 1.0)
    leaving = _motion(rng, tuple(edge), length=(20, 50), turn=0.6, direction=angle)
    layers = [
        Layer(*_piece(rng, names[2], _disc_mask(rng.uniform(20, 40))), leaving),
        lattice,
    ]
    if rng.random() < 0.5:  # the background stands still, or something before it does
        background = Layer(*_piece(rng, names[0], None), still)
    else:
        background = _background(rng, names[0])
        spot = Motion(**{**vars(still), "place": tuple(rng.uniform(0.25, 0.75, 2) * SIZE)})
        layers.insert(1, Layer(*_piece(rng, names[3], _disc_mask(rng.uniform(14, 30))), spot))
    if rng.random() < 0.5:
        place = tuple(rng.uniform(0.25, 0.75, 2) * SIZE)
        more = _piece(rng, names[4], _disc_mask(rng.uniform(12, 24)))
        layers.insert(0, Layer(*more, _motion(rng, place, length=(10, 40), turn=0.9)))
    return background, *layers


def _background(rng: np.random.Generator, photograph: str) -> Layer:
    motion = _motion(rng, (SIZE / 2, SIZE / 2), length=(8, 30), turn=0.08, zoom=0.06)
    return Layer(*_piece(rng, photograph, None), motion)


def _motion(
    rng: np.random.Generator,
    place: tuple[float, ...],
    *,
    length: tuple[float, float],
    turn: float,
    zoom: float = 0.1,
    direction: float | None = None,
) -> Motion:
    """Return a bent path of a length in pixels an exposure, turns and growth up to those given."""
    path = rng.uniform(*length)
    angle = rng.uniform(0, 2 * np.pi) if direction is None else direction
    velocity = path * np.array([np.cos(angle), np.sin(angle)])
    bend = rng.normal(0, 0.5 * path, 2)
    sway = rng.uniform(-0.15, 0.15, 2) * path
    return Motion(
        place=(place[0], place[1]),
        velocity=(velocity[0], velocity[1]),
        bend=(bend[0], bend[1]),
        sway=(sway[0], sway[1]),
        pace=rng.uniform(2, 6),
        turn=rng.uniform(-turn, turn),
        zoom=rng.uniform(-zoom, zoom),
    )


@cache
def _mirrored(photograph: str) -> npt.NDArray[np.uint8]:
    picture = np.asarray(open_photograph(photograph))
    return np.pad(picture, [(_MARGIN, _MARGIN)] * 2 + [(0, 0)], "reflect")


def _piece(
    rng: np.random.Generator, photograph: str, mask: Image.Image | None
) -> tuple[Image.Image, Image.Image | None]:
    """Return a piece of a photograph, as large as the mask; a background has room to move.

    It is enlarged up to twice, as if the camera stood nearer: not all that cameras see is sharp to
    the pixel.
    """
    whole = _mirrored(photograph)
    side = 2 * SIZE + 128 if mask is None else mask.width
    cut = round(side / rng.uniform(1, 2))
    height, width = (s - 2 * _MARGIN for s in whole.shape[:2])
    row, column = (int(rng.uniform(0.3, 0.7) * s) + _MARGIN - cut // 2 for s in (height, width))
    piece = Image.fromarray(whole[row : row + cut, column : column + cut])
    return piece.resize((side, side), Image.Resampling.BICUBIC), mask


def _disc_mask(radius: float) -> Image.Image:
    side = 2 * int(radius + 4)
    rows, columns = np.mgrid[:side, :side] + 0.5 - side / 2
    return _mask(radius - np.hypot(rows, columns))


def _lattice_mask(rng: np.random.Generator) -> Image.Image:
    """Return bars of 2 to 4 pixels, 12 to 24 apart, in a round frame."""
    radius, gap, bar = rng.uniform(40, 60), rng.uniform(12, 24), rng.uniform(2, 4)
    side = 2 * int(radius + 4)
    rows, columns = np.mgrid[:side, :side] + 0.5 - side / 2
    beside = np.stack([np.abs((x + gap / 2) % gap - gap / 2) for x in (rows, columns)])
    outside = radius - np.hypot(rows, columns)
    return _mask(np.minimum(np.maximum(bar / 2 - beside.min(0), bar - outside), outside))


def _lettering_mask(rng: np.random.Generator) -> Image.Image:
    letters = "".join(rng.choice(list("ABDEGHKMNRSWXZ"), 5))
    mask = Image.new("L", (176, 176))
    font = ImageFont.load_default(size=float(rng.uniform(36, 52)))
    ImageDraw.Draw(mask).text((88, 88), letters, fill=255, font=font, anchor="mm")
    return mask


def _mask(depth: Plane) -> Image.Image:
    """Return opacity by how deep a pixel's centre is inside, in pixels."""
    return Image.fromarray(np.rint(255 * (depth + 0.5).clip(0, 1)).astype(np.uint8))


def write_frames(out: Path, kind: str, part: str, count: int = SCENES) -> list[Scene]:
    """Write `out/test/<part>/<scene>/0000.png...` as X4K1000FPS has it; return the scenes."""
    made = list(itertools.islice(scenes(kind, part), count))
    for scene in made:
        folder = out / "test" / part / scene.name
        folder.mkdir(parents=True)
        for i in range(LENGTH):
            Image.fromarray(scene.frame(i)).save(folder / f"{i:04d}.png", compress_level=1)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", default="tuning", choices=tuple(SETS))
    parser.add_argument("--part", default="disc", choices=PARTS)
    options = parser.parse_args()
    write_frames(options.out, options.set, options.part)
