"""Which size a headerless spike file's frames may have: presets, its name and factor pairs, ranked.

    sizes = those of presets | numbers in the name | factors of the file's size
    frames of each size --32 counted--> one picture --cut into rows in every way--> likeness

Frames of a wrong size put unlike pixels on top of each other, which takes the picture's contrast.
A wrong width shears it, and then rows are not alike. Frames of twice the size hold the picture
twice, and are left out where once is as good. The order of rows does not show.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .dat import SpikeFileError
from .geometry import SpikeGeometry, SpikeGeometryError
from .infer import likelier_order, neighbour_correlations
from .parts import open_stream, stream_files
from .presets import PRESETS

LIKELY = 0.1
"""Likeness below which a size is no guess: that of noise is 0."""

_SAMPLES = 32
_FRAME_BITS = (1 << 10, 1 << 21)  # 32x32 to 1080x1920
_MOST_NAMED = 1 << 24
_SHORTEST_SIDE = 16
_MOST_OBLONG = 4
_FEWEST_FRAMES = 4  # of a size that neither a preset nor the name tells
_CONTRAST = 0.5  # of the best; frames with less are cut only as presets and the name say
_MOST_TURNED = 5  # guesses whose order of bits is looked at
_AS_GOOD = 0.9  # likeness of a picture over that of the same one, repeated


@dataclass(frozen=True, slots=True)
class SizeGuess:
    """A size of frames that a spike file may have."""

    source: str
    """Names of presets, `name` for numbers in the file's name, `size` for factors of its size."""
    geometry: SpikeGeometry
    """Frames of this size; only a preset knows the order of rows."""
    n_frames: int
    likeness: float
    """Likeness of neighbouring pixels, from 0 to 1, by the share of the greatest contrast."""


@dataclass(frozen=True, slots=True)
class _Folded:
    """Frames of one size on top of each other."""

    counts: npt.NDArray[np.float32]
    """(pixels,) spikes of the first samples, in the order of the file."""
    n_frames: int
    encoding: str
    contrast: float
    """Covariance of each pixel with the next one, which noise leaves alone."""


def guess_sizes(path: str | os.PathLike[str]) -> list[SizeGuess]:
    """Return the sizes that a spike file's frames may have, the likeliest first.

    Reads at most 32 frames of each size.

    Raises:
        SpikeFileError: as `SpikeFile.open`, but for a size that does not fit.
    """
    stated = list(_stated(path))
    by_pixels: dict[int, list[tuple[str, SpikeGeometry]]] = {n: [] for n in _frame_sizes(path)}
    for source, geometry in stated:
        by_pixels.setdefault(geometry.pixels, []).append((source, geometry))
    folded = {
        (pixels, padded): found
        for pixels, named in by_pixels.items()
        for padded in {False, *(geometry.pad_frames for _, geometry in named)}
        if (found := _fold(path, pixels, padded)) is not None
    }
    if any(found.encoding == "bytes" for found in folded.values()):
        folded = {key: found for key, found in folded.items() if found.encoding == "bytes"}
    most = max((found.contrast for found in folded.values()), default=0.0)
    if most <= 0:
        return []
    guesses: dict[tuple[int, int], SizeGuess] = {}
    for (pixels, padded), found in folded.items():
        cuts = [(s, g) for s, g in by_pixels[pixels] if g.pad_frames == padded]
        if found.contrast >= _CONTRAST * most and found.n_frames >= _FEWEST_FRAMES:
            cuts += [("size", geometry) for geometry in _cuts(pixels)]
        for source, geometry in cuts:
            likeness = found.contrast / most * _likeness(found.counts, geometry)
            guess = SizeGuess(source, geometry, found.n_frames, likeness)
            shape = geometry.height, geometry.width
            if shape not in guesses or guesses[shape].likeness < likeness:
                guesses[shape] = guess
    best_first = sorted(_single(guesses), key=lambda guess: -guess.likeness)
    best, rest = best_first[:_MOST_TURNED], best_first[_MOST_TURNED:]
    return [*(_in_bit_order(path, guess) for guess in best), *rest]


def _stated(path: str | os.PathLike[str]) -> Iterator[tuple[str, SpikeGeometry]]:
    """Yield the sizes of presets, then those that numbers in the names of file and folder give."""
    names: dict[SpikeGeometry, list[str]] = {}
    for name, preset in PRESETS.items():
        names.setdefault(preset.geometry, []).append(name)
    for geometry, presets in names.items():
        yield "|".join(presets), geometry
    whole = Path(path).absolute()
    for text in (whole.stem, whole.parent.name):
        numbers = [int(number) for number in re.findall(r"\d{2,4}", text)]
        for a, b in itertools.pairwise(numbers):
            for height, width in dict.fromkeys(((a, b), (b, a))):
                if min(height, width) < _SHORTEST_SIDE or height * width > _MOST_NAMED:
                    continue
                yield "name", _geometry(height, width)
                if height * width % 8:
                    yield "name", _geometry(height, width, padded=True)


def _frame_sizes(path: str | os.PathLike[str]) -> list[int]:
    """Return the bits that frames of whole bytes may have where each file has some, from few."""
    total = 8 * math.gcd(*(file.stat().st_size for file in stream_files(path)))
    low, high = _FRAME_BITS
    factors = np.arange(1, math.isqrt(total) + 1)
    factors = factors[total % factors == 0]
    sizes = np.unique(np.concatenate([factors, total // np.maximum(factors, 1)]))
    return [int(n) for n in sizes if low <= n <= high and n % 8 == 0]


def _fold(path: str | os.PathLike[str], pixels: int, padded: bool) -> _Folded | None:
    """Count the spikes of each place in frames of so many pixels; None: the file has no such."""
    # The sides don't matter here; they are about as long, so that neither is longer than allowed.
    height = next(n for n in range(math.isqrt(pixels), 0, -1) if pixels % n == 0)
    try:
        in_order = replace(_geometry(height, pixels // height, padded), flip_rows=False)
        spikes = open_stream(path, in_order)
    except SpikeGeometryError:
        return None
    except SpikeFileError as error:
        if isinstance(error.__cause__, SpikeGeometryError):
            return None
        raise
    counted = min(spikes.n_frames, _SAMPLES)
    counts = spikes.counts(1, 0, counted)[0].ravel().astype(np.float32)
    rates = counts / counted
    contrast = float(np.mean((rates[1:] - rates.mean()) * (rates[:-1] - rates.mean())))
    return _Folded(counts, spikes.n_frames, spikes.encoding, max(0.0, contrast))


def _cuts(pixels: int) -> Iterator[SpikeGeometry]:
    """Yield the ways to cut frames of so many pixels into rows."""
    for height in range(_SHORTEST_SIDE, math.isqrt(_MOST_OBLONG * pixels) + 1):
        width, rest = divmod(pixels, height)
        if not rest and width >= _SHORTEST_SIDE and width <= _MOST_OBLONG * height:
            yield _geometry(height, width)


def _geometry(height: int, width: int, padded: bool = False) -> SpikeGeometry:
    # `bottom-up` is most cameras' order.
    return SpikeGeometry(height=height, width=width, flip_rows=True, pad_frames=padded)


def _likeness(counts: npt.NDArray[np.float32], geometry: SpikeGeometry) -> float:
    """Return the geometric mean of the correlations of neighbours, down and across."""
    image = counts.reshape(geometry.height, geometry.width)
    dropped = [range(*span) for span in geometry.drop_columns]
    image = np.delete(image, list(itertools.chain(*dropped)), axis=1)
    down, across = (max(0.0, alike) for alike in neighbour_correlations(image))
    return math.sqrt(down * across)


def _single(guesses: dict[tuple[int, int], SizeGuess]) -> Iterator[SizeGuess]:
    """Yield the guesses but for factors whose picture is another one's, several times."""
    for (height, width), guess in guesses.items():
        repeated = (
            once.likeness >= _AS_GOOD * guess.likeness
            for (h, w), once in guesses.items()
            if w == width and h < height and height % h == 0
        )
        if guess.source != "size" or not any(repeated):
            yield guess


def _in_bit_order(path: str | os.PathLike[str], guess: SizeGuess) -> SizeGuess:
    if guess.likeness < LIKELY or (order := likelier_order(path, guess.geometry)) is None:
        return guess
    return replace(guess, geometry=order.geometry)
