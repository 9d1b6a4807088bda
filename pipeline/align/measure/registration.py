"""Where the colour camera sees what the spike camera sees, from blurred frames and long TFPs.

Over one exposure both cameras saw the same light in the same motion, so a blurred frame and the
TFP of its exposure differ by a homography, a gain and noise only.

    search    all shifts at once by FFT, for a few turns and scales, at a coarse size
    descend   Gauss-Newton on the homography, from coarse to fine (Lucas, Kanade, "An iterative
              image registration technique", IJCAI 1981; compositional: Baker, Matthews, IJCV 2004)

All images of a sequence are fitted together. Points are those of `spikes.registration`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...spikes.registration import Matrix, Registration, RegistrationError

Model = Literal["similarity", "affine", "homography"]
Plane = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Timed = tuple[Plane, Plane, Plane]
"""TFP of an exposure, blurred frame, and by how much the TFP changes a sample."""
PairsAt = Callable[[int], list[Timed]]

_COARSE_SIDE = 40
_TURNS = np.radians(np.arange(-6.0, 6.1, 1.5))
_SCALES = np.exp(np.linspace(-0.15, 0.15, 7))
_STEPS = 30
_MOST_PIXELS = 1 << 17
"""Of a larger image, half the size is enough: that many pixels place corners to a tenth of one."""
_MOST_MOVES = 6
_CONVERGED = 1e-3
"""Spike pixels at the corners."""
_MIN_CORRELATION = 0.8
"""What belongs together reaches 0.9 and more; a homography can make 0.75 of what doesn't."""
_WORST = 1.5
"""Measured: how much further off the worst of four corners is than one of them."""
_LEAST_ERROR = 0.01
"""In spike pixels: what is left where images differ by nothing else."""
_BLOCKS = 4
"""Squared: parts of the image that are left out in turn, for the error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """A registration found from images, and how sure it is."""

    registration: Registration
    correlation: float
    """Of the blurred frames and the TFPs, once registered."""
    error: float
    """Standard error at the worst corner, in frame pixels."""
    confidence: float
    """Probability that every corner is right to within one spike pixel."""


def register(pairs: list[tuple[Plane, Plane]], model: Model = "homography") -> Registered | None:
    """Find the homography between TFPs and blurred frames.

    Args:
        pairs: (TFP (h, w) of an exposure, its blurred frame's luminance (H, W)); of one sequence.
        model: similarity (shift, turn, scale), affine or homography.

    Returns:
        None where there is nothing to see.
    """
    pairs = [(t, b) for t, b in pairs if float(t.std()) > 1e-4 and float(b.std()) > 1e-3]
    if not pairs:
        return None
    spike_shape, frame_shape = pairs[0][0].shape, pairs[0][1].shape
    h, w = int(spike_shape[0]), int(spike_shape[1])
    levels = _levels([(t, b, np.zeros_like(t)) for t, b in pairs])
    guess = _search(levels[-1])
    for i, level in enumerate(reversed(levels)):
        finest = i == len(levels) - 1
        guess = _descend(level, guess, "similarity" if i == 0 else "affine")[0]
        if finest and model != "affine":
            guess = _descend(level, guess, model)[0]
    fine = levels[0]
    correlation = _correlation(fine, guess)
    scale = max(frame_shape[0] / h, frame_shape[1] / w)
    corners = _corners(guess)
    spread = [
        _corners(_descend(fine, guess, model, without=block)[0]) - corners
        for block in range(_BLOCKS**2)
    ]
    n = len(spread)
    moved = np.stack(spread) * (np.array([w, h]) / 2)  # (blocks, 4, 2) spike pixels
    one = float(np.sqrt((n - 1) / n * np.square(moved).sum(axis=(0, 2))).max())
    error = scale * math.hypot(_WORST * one, _LEAST_ERROR)
    try:
        found = _as_registration(guess, (h, w), (int(frame_shape[0]), int(frame_shape[1])))
    except RegistrationError:
        return None  # images that don't belong together can end anywhere
    likely = math.erf(scale / (math.sqrt(2) * max(error, 1e-3)))
    return Registered(
        registration=found,
        correlation=correlation,
        error=error,
        confidence=round(likely if correlation >= _MIN_CORRELATION else 0.0, 4),
    )


def find_lag_anywhere(pairs_at: PairsAt, lags: list[int]) -> int | None:
    """Find the lag of spikes that lie anywhere in the frames, for `register` to begin with.

    A place follows a lag: of a scene that moves to the right, late spikes lie to the left. So a
    similarity is fitted at each lag, starting from its neighbour's, and where the images fit best
    lag and place are refined together. A scene that only glides at one speed can't tell them
    apart.

    Args:
        pairs_at: gives TFPs, blurred frames and the TFPs' change a sample, at a lag in samples;
            fewer where exposures leave the recording.
        lags: to try, ascending, 0 among them.

    Returns:
        Samples, whole; None where there is nothing to see.
    """
    start = lags.index(0)
    tried: dict[int, tuple[float, Floats]] = {}
    for way in (lags[start:], lags[start::-1]):
        guess: Floats | None = tried[0][1] if 0 in tried else None
        for lag in way:
            pairs = pairs_at(lag)
            if lag in tried or not pairs:
                continue
            level = _levels(pairs)[-1]
            if guess is None:
                guess = _search(level)
            guess = _descend(level, guess, "similarity", steps=8)[0]
            tried[lag] = _correlation(level, guess), guess
    if not tried:
        return None
    lag = max(tried, key=lambda one: tried[one][0])
    guess = tried[lag][1]
    most = max(abs(b - a) for a, b in itertools.pairwise(lags))
    for _ in range(_MOST_MOVES):
        pairs = pairs_at(lag)
        if not pairs:
            break
        delta = 0.0
        for level in reversed(_levels(pairs)):
            guess, delta = _descend(level, guess, "similarity", delta=delta, timed=True)
        step = round(min(most, max(-most, delta)))
        lag += step
        if step == 0:
            break
    return lag


def _levels(pairs: list[Timed]) -> list[list[Timed]]:
    """Return the pairs at the spikes' size and halved, again and again, to _COARSE_SIDE."""
    h, w = pairs[0][0].shape
    levels = [[(_smooth(t), _smooth(_reduced(b, (h, w))), _smooth(c)) for t, b, c in pairs]]
    while min(levels[-1][0][0].shape) >= 2 * _COARSE_SIDE:
        levels.append([(_halved(t), _halved(b), _halved(c)) for t, b, c in levels[-1]])
    while len(levels) > 1 and levels[0][0][0].size > _MOST_PIXELS:
        levels.pop(0)
    return levels


def seen_by_spikes(frame: Plane, registration: Registration) -> Plane:
    """Return a frame's luminance (H, W) at the spikes' pixels (h, w); NaN outside the frame."""
    guess = _as_guess(registration)
    moved, known = _warped(
        _reduced(frame, registration.spike_shape), guess, registration.spike_shape
    )
    return np.where(known > 0, moved, np.nan).astype(np.float32)


# Inside, points are (a, b) in [-1, 1]^2 on both images, and a matrix maps the spikes' to the
# frames': well conditioned, and the same at all levels.


def _to_pixels(shape: tuple[int, int]) -> Floats:
    height, width = shape
    return np.array([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]])


def _as_guess(registration: Registration) -> Floats:
    matrix = np.array(registration.matrix).reshape(3, 3)
    to_frame = np.linalg.inv(_to_pixels(registration.frame_shape))
    return np.asarray(to_frame @ matrix @ _to_pixels(registration.spike_shape))


def _as_registration(
    guess: Floats, spike_shape: tuple[int, int], frame_shape: tuple[int, int]
) -> Registration:
    matrix = _to_pixels(frame_shape) @ guess @ np.linalg.inv(_to_pixels(spike_shape))
    matrix = matrix / matrix[2, 2]
    rounded = [round(float(value), 12) for value in matrix.ravel()]
    a, b, c, d, e, f, g, h, i = rounded
    whole: Matrix = (a, b, c, d, e, f, g, h, i)
    return Registration(whole, spike_shape, frame_shape)


def _grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    h, w = shape
    a = (np.arange(w) + 0.5) * 2 / w - 1
    b = (np.arange(h) + 0.5) * 2 / h - 1
    x, y = np.meshgrid(a, b)
    return x, y


def _warped(image: Plane, guess: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return the frame at the places of the spike pixels (h, w), and 1 where it is known."""
    a, b = _grid(shape)
    x, y, depth = (row[0] * a + row[1] * b + row[2] for row in guess)
    h, w = image.shape
    u = (x / depth + 1) * w / 2 - 0.5
    v = (y / depth + 1) * h / 2 - 0.5
    inside = (u >= 0) & (u <= w - 1) & (v >= 0) & (v <= h - 1) & (depth > 0)
    u, v = np.where(inside, u, 0.0), np.where(inside, v, 0.0)
    left = np.minimum(u.astype(np.intp), w - 2)
    top = np.minimum(v.astype(np.intp), h - 2)
    s, t = u - left, v - top
    upper = image[top, left] * (1 - s) + image[top, left + 1] * s
    lower = image[top + 1, left] * (1 - s) + image[top + 1, left + 1] * s
    return np.where(inside, upper * (1 - t) + lower * t, 0.0), inside.astype(np.float64)


def _search(level: list[Timed]) -> Floats:
    """Return the best similarity of a few turns and scales with any shift."""
    shape = level[0][0].shape
    h, w = shape
    aspect = h / w
    best = -np.inf, np.eye(3)
    size = (2 * h, 2 * w)
    spectra = []
    for tfp, _, _ in level:
        centred = tfp - tfp.mean()
        spectra.append(np.fft.rfft2(centred / np.linalg.norm(centred), size))
    ones = np.fft.rfft2(np.ones(shape), size)
    for turn in _TURNS:
        for scale in _SCALES:
            c, s = scale * math.cos(turn), scale * math.sin(turn)
            # In [-1, 1]^2 a turn is one only on square images.
            guess = np.array([[c, -s * aspect, 0], [s / aspect, c, 0], [0, 0, 1]])
            total = np.zeros(size)
            for (_, frame, _), spectrum in zip(level, spectra, strict=True):
                moved, known = _warped(frame, guess, shape)
                weights = known.sum()
                moved = (moved - (moved * known).sum() / weights) * known
                cross = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(moved, size)), size)
                # The norm of what is left of the frame inside the shifted image.
                energy = np.fft.irfft2(ones * np.conj(np.fft.rfft2(moved**2, size)), size)
                total += cross / np.sqrt(np.maximum(energy, 0.25 * energy.max()))
            dy, dx = np.unravel_index(int(np.argmax(total)), size)
            shift_y = int(dy) - (size[0] if dy > h else 0)
            shift_x = int(dx) - (size[1] if dx > w else 0)
            if total[dy, dx] > best[0]:
                # tfp(p + shift) ~ frame(guess p)
                back = np.eye(3)
                back[:2, 2] = -2 * shift_x / w, -2 * shift_y / h
                best = float(total[dy, dx]), guess @ back
    return best[1]


_COLUMNS: dict[Model, int] = {"similarity": 4, "affine": 6, "homography": 8}


def _descend(
    level: list[Timed],
    guess: Floats,
    model: Model,
    *,
    without: int | None = None,
    steps: int = _STEPS,
    delta: float = 0.0,
    timed: bool = False,
) -> tuple[Floats, float]:
    """Return the matrix at which frames and TFPs differ least, and the lag that is left.

    Args:
        level: images of one size.
        guess: matrix to start from.
        model: what of it may change.
        without: block of the image to leave out.
        steps: at most.
        delta: lag in samples to start from.
        timed: the lag may change as well.
    """
    shape = level[0][0].shape
    h, w = shape
    a, b = _grid(shape)
    basis = _basis(a, b, model, h / w)
    kept = np.ones(shape)
    if without is not None:
        rows = np.minimum(np.arange(h) * _BLOCKS // h, _BLOCKS - 1)
        columns = np.minimum(np.arange(w) * _BLOCKS // w, _BLOCKS - 1)
        kept[(rows[:, None] * _BLOCKS + columns) == without] = 0.0
    damping = 1e-4
    residual, system, right = _normal(level, guess, basis, kept, delta)
    for _ in range(steps):
        free = slice(None) if timed else slice(-1)
        own = system[free, free]
        lhs = own + damping * np.diag(np.diag(own)) + 1e-12 * np.eye(len(own))
        step: Floats = np.asarray(np.linalg.solve(lhs, right[free]), np.float64)
        later = delta + float(step[-1]) if timed else delta
        increment = _increment(step[:-1] if timed else step, model, h / w)
        tried: Floats = guess @ increment
        tried = tried / tried[2, 2]
        found = _normal(level, tried, basis, kept, later)
        if found[0] > residual:
            damping *= 10
            if damping > 1e4:
                break
            continue
        moved = float(np.abs((_corners(tried) - _corners(guess)) * np.array([w, h]) / 2).max())
        moved = max(moved, 0.01 * abs(later - delta))
        guess, delta, (residual, system, right) = tried, later, found
        damping = max(damping / 10, 1e-7)
        if moved < _CONVERGED:
            break
    return guess, delta


def _normal(
    level: list[Timed],
    guess: Floats,
    basis: tuple[Floats, Floats],
    kept: Floats,
    delta: float = 0.0,
) -> tuple[float, Floats, Floats]:
    """Return (1 - correlation, J^T J, J^T r) of all pairs, each with its own gain and offset.

    The last parameter is the lag.
    """
    n = basis[0].shape[0] + 1
    system, right, apart = np.zeros((n, n)), np.zeros(n), 0.0
    for early, frame, change in level:
        tfp = early + np.float32(delta) * change
        moved, known = _warped(frame, guess, tfp.shape)
        weight = known * kept
        # Gradients mix neighbours, so the border of what is known is left out.
        weight[1:-1, 1:-1] *= (
            known[:-2, 1:-1] * known[2:, 1:-1] * known[1:-1, :-2] * known[1:-1, 2:]
        )
        weight[[0, -1]] = 0
        weight[:, [0, -1]] = 0
        total = weight.sum()
        if total < 0.1 * weight.size:
            return math.inf, system, right
        t = tfp - (tfp * weight).sum() / total
        m = moved - (moved * weight).sum() / total
        energy = float((weight * m * m).sum())
        power = float((weight * t * t).sum())
        if energy <= 0 or power <= 0:
            return math.inf, system, right
        gain = float((weight * t * m).sum()) / energy
        left = t - gain * m
        h, w = tfp.shape
        gy, gx = np.gradient(moved)
        gradient_a, gradient_b = gain * gx * w / 2, gain * gy * h / 2
        place = basis[0] * gradient_a + basis[1] * gradient_b
        jacobian = np.concatenate([place, -change[None]])  # (n, h, w)
        jacobian = jacobian - ((jacobian * weight).sum(axis=(1, 2)) / total)[:, None, None]
        flat = (jacobian * np.sqrt(weight)).reshape(n, -1)
        system += flat @ flat.T / power
        right += flat @ (left * np.sqrt(weight)).ravel() / power
        apart += float((weight * left * left).sum()) / power
    return apart, system, right


def _basis(a: Floats, b: Floats, model: Model, aspect: float) -> tuple[Floats, Floats]:
    """Return how a point (a, b) moves with each parameter: (n, h, w) each way."""
    one, zero = np.ones_like(a), np.zeros_like(a)
    if model == "similarity":
        return (
            np.stack([one, zero, a, -b * aspect]),
            np.stack([zero, one, b, a / aspect]),
        )
    along = [one, zero, a, b, zero, zero, -a * a, -a * b]
    across = [zero, one, zero, zero, a, b, -a * b, -b * b]
    n = _COLUMNS[model]
    return np.stack(along[:n]), np.stack(across[:n])


def _increment(step: Floats, model: Model, aspect: float) -> Floats:
    if model == "similarity":
        x, y, scale, turn = step
        return np.array(
            [[1 + scale, -turn * aspect, x], [turn / aspect, 1 + scale, y], [0, 0, 1.0]]
        )
    x, y, xx, xy, yx, yy, *rest = step
    g, h = rest or (0.0, 0.0)
    return np.array([[1 + xx, xy, x], [yx, 1 + yy, y], [g, h, 1.0]])


def _correlation(level: list[Timed], guess: Floats) -> float:
    basis = _basis(*_grid(level[0][0].shape), "similarity", 1.0)
    apart, _, _ = _normal(level, guess, basis, np.ones(level[0][0].shape))
    mean = apart / len(level)
    return round(math.sqrt(max(0.0, 1 - mean)), 6) if math.isfinite(mean) else 0.0


def _corners(guess: Floats) -> Floats:
    points = np.array([(-1, -1, 1), (1, -1, 1), (-1, 1, 1), (1, 1, 1)], np.float64) @ guess.T
    return np.asarray(points[:, :2] / points[:, 2:])


def _reduced(image: Plane, shape: tuple[int, int]) -> Plane:
    """Return the image with about as many pixels as `shape`, by area mean."""
    h, w = shape
    by = max(1, round(min(image.shape[0] / h, image.shape[1] / w)))
    if by == 1:
        return image
    # A few pixels that do not fill a square are dropped by resizing over the whole image.
    size = image.shape[1] // by, image.shape[0] // by
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.float32)


def _halved(image: Plane) -> Plane:
    size = image.shape[1] // 2, image.shape[0] // 2
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.float32)


def _smooth(image: Plane) -> Plane:
    """Return the image under a 3x3 binomial, which bilinear sampling wants."""
    padded = np.pad(image, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4, np.float32)
