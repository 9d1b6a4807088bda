"""The registration of spikes with colour frames, from blurred frames and TFPs.

During one exposure both cameras saw the same light in the same motion, so a blurred frame and the
TFP of its exposure differ only by a homography, a gain and noise. It is found in two steps:

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
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...spikes.registration import Matrix, Registration, RegistrationError

Model = Literal["similarity", "affine", "homography"]
Plane = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Timed = tuple[Plane, Plane, Plane]
"""TFP of an exposure, its blurred frame, and the change of the TFP a sample."""
PairsAt = Callable[[int], list[Timed]]

_COARSE_SIDE = 40
"""Least side of the coarsest images, in pixels."""
_TURNS = np.radians(np.arange(-6.0, 6.1, 1.5))
"""Turns that are searched, in radians."""
_SCALES = np.exp(np.linspace(-0.15, 0.15, 7))
"""Scales that are searched."""
_STEPS = 30
"""Most steps of Gauss-Newton at one size."""
_MOST_PIXELS = 1 << 17
"""Pixels above which images are halved: that many place corners to a tenth of a pixel."""
_MOST_MOVES = 6
"""Most times that lag and registration are refined together."""
_CONVERGED = 1e-3
"""Movement of the corners, in spike pixels, with which Gauss-Newton ends."""
_MIN_CORRELATION = 0.8
"""Least correlation of a sure registration: right ones reach 0.9 and more, wrong ones 0.75."""
_WORST = 1.5
"""Error of the worst of four corners over that of one of them (measured)."""
_LEAST_ERROR = 0.01
"""Error that is left where images differ by nothing else, in spike pixels."""
_BLOCKS = 4
"""Blocks along each side of the image, which are left out in turn for the error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """A registration that was found from images, and how sure it is."""

    registration: Registration
    correlation: float
    """Correlation of the registered blurred frames with the TFPs."""
    error: float
    """Standard error at the worst corner, in frame pixels."""
    confidence: float
    """Probability that every corner is right to within one spike pixel."""


def register(pairs: list[tuple[Plane, Plane]], model: Model = "homography") -> Registered | None:
    """Find the homography between TFPs and blurred frames of one sequence.

    Args:
        pairs: TFP (h, w) of an exposure, and luminance (H, W) of its blurred frame.
        model: similarity (shift, turn, scale), affine or homography.

    Returns:
        The registration; None: all images are flat, or do not belong together.
    """
    pairs = [(t, b) for t, b in pairs if float(t.std()) > 1e-4 and float(b.std()) > 1e-3]
    if not pairs:
        return None
    (h, w), (height, width) = pairs[0][0].shape, pairs[0][1].shape
    levels = _levels([(t, b, np.zeros_like(t)) for t, b in pairs])
    guess = _search(levels[-1])
    for i, level in enumerate(reversed(levels)):
        guess = _descend(level, guess, "similarity" if i == 0 else "affine")[0]
    fine = levels[0]
    guess = _descend(fine, guess, model)[0]
    correlation = _correlation(fine, guess)
    scale = max(height / h, width / w)
    corners = _corners(guess)
    spread = [
        _corners(_descend(fine, guess, model, without=block)[0]) - corners
        for block in range(_BLOCKS**2)
    ]
    n = len(spread)
    moved = np.stack(spread) * (np.array([w, h]) / 2)  # (blocks, 4, 2) spike pixels
    corner = float(np.sqrt((n - 1) / n * np.square(moved).sum(axis=(0, 2))).max())
    error = scale * math.hypot(_WORST * corner, _LEAST_ERROR)
    try:
        registration = _as_registration(guess, (h, w), (height, width))
    except RegistrationError:
        return None  # images that don't belong together can end anywhere
    likely = math.erf(scale / (math.sqrt(2) * max(error, 1e-3)))
    return Registered(
        registration=registration,
        correlation=correlation,
        error=error,
        confidence=round(likely if correlation >= _MIN_CORRELATION else 0.0, 4),
    )


def find_lag_anywhere(pairs_at: PairsAt, lags: list[int]) -> int | None:
    """Find the lag, in samples, of spikes that are not registered yet, for `register` to use.

    A lag looks like a shift: where a scene moves to the right, late spikes lie to the left. So a
    similarity is fitted at each lag, starting from that of the lag before, and where images fit
    best, lag and similarity are refined together. A scene that glides at one speed can't tell
    them apart.

    Args:
        pairs_at: gives the images at a lag in samples, of the exposures that then lie inside the
            recording.
        lags: lags to try, in samples, ascending, 0 among them.

    Returns:
        The lag; None: no exposure lies inside the recording at any lag.
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
    lag = max(tried, key=lambda lag: tried[lag][0])
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
    """Return the images at the spikes' size, and halved again and again down to _COARSE_SIDE."""
    h, w = pairs[0][0].shape
    levels = [[(_smooth(t), _smooth(_reduced(b, (h, w))), _smooth(c)) for t, b, c in pairs]]
    while min(levels[-1][0][0].shape) >= 2 * _COARSE_SIDE:
        levels.append([(_halved(t), _halved(b), _halved(c)) for t, b, c in levels[-1]])
    while len(levels) > 1 and levels[0][0][0].size > _MOST_PIXELS:
        levels.pop(0)
    return levels


def seen_by_spikes(frame: Plane, registration: Registration) -> Plane:
    """Return a frame's luminance (H, W) at the spikes' pixels (h, w); NaN outside the frame."""
    matrix = np.array(registration.matrix).reshape(3, 3)
    to_frame = np.linalg.inv(_to_pixels(registration.frame_shape))
    guess = to_frame @ matrix @ _to_pixels(registration.spike_shape)
    moved, known = _warped(
        _reduced(frame, registration.spike_shape), guess, registration.spike_shape
    )
    return np.where(known > 0, moved, np.nan).astype(np.float32)


# From here on, points are (a, b) in [-1, 1]^2 on both images, and a guess is the 3x3 matrix that
# maps spike points to frame points: it is well conditioned, and the same at all sizes.


def _to_pixels(shape: tuple[int, int]) -> Floats:
    height, width = shape
    return np.array([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]])


def _as_registration(
    guess: Floats, spike_shape: tuple[int, int], frame_shape: tuple[int, int]
) -> Registration:
    matrix = _to_pixels(frame_shape) @ guess @ np.linalg.inv(_to_pixels(spike_shape))
    matrix = matrix / matrix[2, 2]
    numbers = cast(Matrix, tuple(round(value, 12) for value in matrix.ravel().tolist()))
    return Registration(numbers, spike_shape, frame_shape)


def _grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return (a, b) of the pixels of an image, (h, w) each."""
    h, w = shape
    a, b = np.meshgrid((np.arange(w) + 0.5) * 2 / w - 1, (np.arange(h) + 0.5) * 2 / h - 1)
    return a, b


def _warped(image: Plane, guess: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return the frame's values at the spike pixels (h, w), and 1 where there is one, else 0."""
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
    """Return the best similarity among _TURNS and _SCALES with any shift."""
    shape = level[0][0].shape
    h, w = shape
    best = -np.inf, np.eye(3)
    size = (2 * h, 2 * w)
    spectra = []
    for tfp, _, _ in level:
        centred = tfp - tfp.mean()
        spectra.append(np.fft.rfft2(centred / np.linalg.norm(centred), size))
    ones = np.fft.rfft2(np.ones(shape), size)
    for turn in _TURNS:
        for scale in _SCALES:
            guess = _similarity(scale * math.cos(turn), scale * math.sin(turn), h / w)
            total = np.zeros(size)
            for (_, frame, _), spectrum in zip(level, spectra, strict=True):
                moved, known = _warped(frame, guess, shape)
                weights = known.sum()
                moved = (moved - (moved * known).sum() / weights) * known
                cross = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(moved, size)), size)
                # Squared norm of the part of the frame that lies inside the shifted image.
                energy = np.fft.irfft2(ones * np.conj(np.fft.rfft2(moved**2, size)), size)
                total += cross / np.sqrt(np.maximum(energy, 0.25 * energy.max()))
            dy, dx = np.unravel_index(int(np.argmax(total)), size)
            shift_y = int(dy) - (size[0] if dy > h else 0)
            shift_x = int(dx) - (size[1] if dx > w else 0)
            if total[dy, dx] > best[0]:
                # tfp(p + shift) ~ frame(guess p)
                back = _similarity(1.0, 0.0, h / w, -2 * shift_x / w, -2 * shift_y / h)
                best = float(total[dy, dx]), guess @ back
    return best[1]


def _similarity(c: float, s: float, aspect: float, x: float = 0.0, y: float = 0.0) -> Floats:
    """Return a similarity's matrix in [-1, 1]^2, on images that are `aspect` as high as wide.

    Args:
        c: scale times the turn's cosine.
        s: scale times the turn's sine.
        aspect: height over width.
        x: shift to the right.
        y: shift down.
    """
    return np.array([[c, -s * aspect, x], [s / aspect, c, y], [0, 0, 1.0]])


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
    """Return the matrix at which frames and TFPs differ least, and the lag, in samples.

    Args:
        level: images of one size.
        guess: matrix to start from.
        model: how the matrix may change.
        without: block of the image to leave out.
        steps: most steps.
        delta: lag to start from, in samples.
        timed: fit the lag as well.
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
        fitted = system[free, free]
        damped = fitted + damping * np.diag(np.diag(fitted)) + 1e-12 * np.eye(len(fitted))
        step: Floats = np.asarray(np.linalg.solve(damped, right[free]), np.float64)
        later = delta + float(step[-1]) if timed else delta
        tried: Floats = guess @ _increment(step[:-1] if timed else step, model, h / w)
        tried = tried / tried[2, 2]
        normal = _normal(level, tried, basis, kept, later)
        if normal[0] > residual:
            damping *= 10
            if damping > 1e4:
                break
            continue
        moved = float(np.abs((_corners(tried) - _corners(guess)) * np.array([w, h]) / 2).max())
        moved = max(moved, 0.01 * abs(later - delta))
        guess, delta, (residual, system, right) = tried, later, normal
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
    """Return (residual, J^T J, J^T r) over all pairs, each with its own gain and offset.

    The residual is the sum of 1 - correlation squared. The last parameter is the lag.
    """
    n = basis[0].shape[0] + 1
    system, right, apart = np.zeros((n, n)), np.zeros(n), 0.0
    for early, frame, change in level:
        tfp = early + np.float32(delta) * change
        moved, known = _warped(frame, guess, tfp.shape)
        weight = known * kept
        # Gradients mix neighbours, so pixels beside unknown ones are left out.
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
    """Return how far a point moves along a and b with each parameter, (n, h, w) each."""
    one, zero = np.ones_like(a), np.zeros_like(a)
    if model == "similarity":
        return np.stack([one, zero, a, -b * aspect]), np.stack([zero, one, b, a / aspect])
    along = [one, zero, a, b, zero, zero, -a * a, -a * b]
    across = [zero, one, zero, zero, a, b, -a * b, -b * b]
    n = 6 if model == "affine" else 8
    return np.stack(along[:n]), np.stack(across[:n])


def _increment(step: Floats, model: Model, aspect: float) -> Floats:
    if model == "similarity":
        x, y, scale, turn = step
        return _similarity(1 + scale, turn, aspect, x, y)
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
    return _halved(image, max(1, round(min(image.shape[0] / h, image.shape[1] / w))))


def _halved(image: Plane, by: int = 2) -> Plane:
    """Return the image at 1 / `by` of its size, by area mean."""
    if by == 1:
        return image
    size = image.shape[1] // by, image.shape[0] // by
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.float32)


def _smooth(image: Plane) -> Plane:
    """Return the image smoothed by a 3x3 binomial, without which bilinear sampling aliases."""
    padded = np.pad(image, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4, np.float32)
