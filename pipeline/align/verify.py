"""Are the spikes where the timeline says? The sharp frames can tell.

For a few windows, a short TFP slides over the samples around the sharp frame's time; where it
looks most like the sharp frame is where the frame really is. The difference is the lag.

    expected   |---------- exposure ----------|
    TFP           [--]->                             correlation with the sharp frame, per lag
    found                     ^ peak: lag = peak - centre

What this proves depends on the scene: without texture no TFP looks like the frame, without
motion all do. Then the lag is reported as not proved, never as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..images import read_rgb
from ..spikes.camera import luminance
from ..spikes.clock import SpikeClock
from ..spikes.dat import SpikeFile
from .manifest import Verification

MAX_WINDOWS = 3

_MIN_CORRELATION = 0.5
"""Under this, likeness may be chance: REDS upside down still reaches 0.3, upright 0.85 to 0.98."""
_MIN_DROP = 0.01
"""The curve must fall by this on both sides of its peak, or nothing moves."""
_MAX_CELLS = 48_000_000
"""Spikes held at once, in bytes; larger recordings are compared on their middle rows."""

Curve = npt.NDArray[np.float64]
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharpAt:
    """One sharp frame and where the timeline puts it."""

    sharp: Path
    spikes: SpikeFile
    clock: SpikeClock
    t0: float
    t1: float


def verify_sequence(frames: list[SharpAt]) -> Verification | None:
    """Measure how far the spikes lag behind the sharp frames.

    Searches one exposure to each side, as far as the recordings go, on up to three frames.

    Args:
        frames: of one sequence, in order of time; all with the same rate and exposure.

    Returns:
        The lag with its confidence; None where there is no sharp frame.

    Raises:
        ImageError: a sharp frame can't be read.
    """
    if not frames:
        return None
    start, stop = frames[0].clock.samples(frames[0].t0, frames[0].t1)
    reach = stop - start
    chosen = _spread(frames, reach)
    slides = [slide for slide in (_read_slide(frame, reach) for frame in chosen) if slide]
    candidates = [
        (width, curve)
        for width in _widths(reach)
        if (curve := _combine([_correlate(slide, reach, width) for slide in slides])) is not None
    ]
    rate = frames[0].clock.rate
    if not candidates:
        return Verification(
            lag_frames=0.0,
            lag_seconds=0.0,
            correlation=0.0,
            confident=False,
            warning="the sharp frames or the spikes are flat: nothing to compare",
        )
    # A short TFP is noisy, a long one blurred: what looks most like the frame is neither.
    width, curve = max(candidates, key=lambda candidate: float(np.nanmax(candidate[1])))
    return _judge(curve, reach, width, rate, chosen[0].spikes.geometry.pixels)


def _widths(reach: int) -> list[int]:
    """Return the lengths of TFP to try, in samples; odd, so that each has a middle."""
    widths = []
    width = 5
    while width <= max(5, min(reach, 65)):
        widths.append(width)
        width = 2 * width - 1
    return widths


def _spread(frames: list[SharpAt], reach: int) -> list[SharpAt]:
    """Return up to MAX_WINDOWS frames: those with most recording around them, then spread."""
    if len(frames) <= MAX_WINDOWS:
        return frames

    def room(frame: SharpAt) -> int:
        start, stop = frame.clock.samples(frame.t0, frame.t1)
        centre = (start + stop - 1) // 2
        return min(centre, frame.spikes.n_frames - 1 - centre, reach)

    rooms = [room(frame) for frame in frames]
    wide = [frame for frame, r in zip(frames, rooms, strict=True) if r >= 0.8 * max(rooms)]
    if len(wide) < MAX_WINDOWS:
        order = sorted(range(len(frames)), key=lambda i: (-rooms[i], i))[:MAX_WINDOWS]
        return [frames[i] for i in sorted(order)]
    steps = [round(i * (len(wide) - 1) / (MAX_WINDOWS - 1)) for i in range(MAX_WINDOWS)]
    return [wide[i] for i in steps]


@dataclass(frozen=True, slots=True)
class _Slide:
    """One sharp frame and the spikes that the TFP slides over."""

    sharp: Plane
    """(h * W,), of mean 0 and norm 1."""
    spikes: npt.NDArray[np.uint8]
    """(T, h * W)."""
    offset: int
    """Sample of `spikes[0]`, counted from the sharp frame's expected one."""


def _read_slide(frame: SharpAt, reach: int) -> _Slide | None:
    """Return what is there of one frame's search range; None for a flat sharp frame."""
    start, stop = frame.clock.samples(frame.t0, frame.t1)
    centre = (start + stop - 1) // 2
    margin = max(_widths(reach)) // 2
    first = max(0, centre - reach - margin)
    last = min(frame.spikes.n_frames, centre + reach + margin + 1)
    height, columns = frame.spikes.geometry.shape
    n_rows = min(height, max(16, _MAX_CELLS // ((last - first) * columns)))
    top = (height - n_rows) // 2
    sharp = read_luminance(frame.sharp, (height, columns))[top : top + n_rows].reshape(-1)
    sharp = sharp - sharp.mean()
    norm = float(np.linalg.norm(sharp))
    if norm <= 1e-3 * math.sqrt(sharp.size):
        return None
    spikes = frame.spikes.read(first, last, rows=(top, top + n_rows))  # (T, h, W)
    spikes = spikes.reshape(len(spikes), -1)  # (T, h * W)
    return _Slide(np.asarray(sharp / norm, np.float32), spikes, first - centre)


def _correlate(slide: _Slide, reach: int, width: int) -> Curve:
    """Return the correlation at each lag from -reach to reach; NaN outside the recording."""
    curve = np.full(2 * reach + 1, np.nan)
    spikes = slide.spikes
    count = spikes[:width].sum(axis=0, dtype=np.float32)  # (h * W,)
    for i in range(len(spikes) - width + 1):
        if i:
            count += spikes[i + width - 1]
            count -= spikes[i - 1]
        lag = slide.offset + i + width // 2
        if abs(lag) > reach:
            continue
        mean = float(count.mean(dtype=np.float64))
        # Small integers, so float32 sums are exact enough; sharp has mean 0.
        spread = float(np.dot(count, count)) - mean * mean * count.size
        if spread > 0:
            curve[lag + reach] = float(np.dot(count, slide.sharp)) / math.sqrt(spread)
    return curve


def _combine(curves: list[Curve]) -> Curve | None:
    """Return one curve; where fewer frames reach, their offset from the mean is taken out.

    None where no curve has a value.

    Frames correlate differently well, so a plain mean would step where one of them ends. The
    model is curve k = common + offset k, solved by alternation.
    """
    curves = [curve for curve in curves if np.isfinite(curve).any()]
    if not curves:
        return None
    stack = np.stack(curves)  # (K, lags)
    known = np.isfinite(stack)
    offset = np.zeros((len(stack), 1))
    common = np.full(stack.shape[1], np.nan)
    some = known.any(axis=0)
    for _ in range(20):
        common[some] = np.nanmean((stack - offset)[:, some], axis=0)
        offset = np.nanmean(stack - common, axis=1, keepdims=True)
        offset -= offset.mean()
    return common


def _judge(curve: Curve, reach: int, width: int, rate: float, pixels: int) -> Verification:
    known = np.flatnonzero(np.isfinite(curve))
    values = curve[known]
    top = int(np.argmax(values))
    peak = float(values[top])
    lag = float(known[top] - reach)
    at_edge = top in (0, len(values) - 1)
    if not at_edge:
        lag += _vertex(values, top, max(2, width // 2))
    drop = peak - max(float(values[: top + 1].min()), float(values[top:].min()))
    # Standard error of a correlation of that many independent pixels; 5 of them for the search.
    noise = 5 * (1 - peak * peak) / math.sqrt(pixels)
    rival = _rival(values, top, peak - drop / 2)

    lag = round(lag, 4)
    warning = None
    found = f"best match at {lag:+.1f} samples ({1000 * lag / rate:+.3f} ms)"
    if peak < _MIN_CORRELATION:
        warning = (
            f"spikes and sharp frames do not look alike (correlation {peak:.2f} at best): check "
            "geometry, row order and that they belong together"
        )
    elif drop < max(_MIN_DROP, noise) and not at_edge:
        warning = (
            f"the correlation hardly changes with time ({peak:.3f}, falling by {drop:.3f}): "
            "nothing moves, so the lag is not proved"
        )
    elif at_edge:
        warning = f"{found}, at the end of the search: the true lag may lie beyond"
    elif rival is not None and peak - rival < max(0.1 * drop, noise / 5):
        warning = f"{found}, but another time matches as well ({rival:.3f} to {peak:.3f})"
    confident = warning is None
    if confident and abs(lag) > (reach - 1) / 2:
        warning = f"{found}, more than half an exposure away: check fps, rate and first sample"
    return Verification(
        lag_frames=lag,
        lag_seconds=round(lag / rate, 9),
        correlation=round(min(1.0, max(-1.0, peak)), 6),
        confident=confident,
        warning=warning,
    )


def _vertex(values: Curve, top: int, half: int) -> float:
    """Return where a parabola through the samples around `top` peaks, relative to it."""
    half = min(half, top, len(values) - 1 - top)
    x = np.arange(-half, half + 1)
    a, b, _ = np.polyfit(x, values[top - half : top + half + 1], 2)
    if a >= 0:
        return 0.0
    return float(np.clip(-b / (2 * a), -half, half))


def _rival(values: Curve, top: int, level: float) -> float | None:
    """Return the highest value outside the main lobe, which ends where it falls to `level`."""
    below = np.flatnonzero(values <= level)
    left = below[below < top]
    right = below[below > top]
    outside = np.concatenate(
        [values[: left[-1] + 1] if left.size else [], values[right[0] :] if right.size else []]
    )
    return float(outside.max()) if outside.size else None


def read_luminance(path: Path, shape: tuple[int, int]) -> Plane:
    """Read an image as luminance in [0, 1], brought to `shape` (H, W) by area mean.

    Raises:
        ImageError: missing, or no plain 8-bit image.
    """
    plane = luminance(read_rgb(path))  # (H, W)
    height, width = shape
    if plane.shape == shape:
        return plane
    smaller = plane.shape[0] >= height and plane.shape[1] >= width
    how = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(plane).resize((width, height), how), np.float32)
