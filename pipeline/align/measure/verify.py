"""Are the spikes where the timeline says, and are they the right ones? The frames can tell.

The blurred frame of an exposure looks like the TFP of just that exposure, and the sharp frame
like a short TFP at its middle. Sliding a TFP over the recording shows where each frame really is.
Blurred frames decide wherever recordings are longer than their exposures, since long TFPs have
little noise; else sharp frames do.

What this proves depends on the scene: without texture no TFP looks like the frame, without
motion all do. Then the lag is reported as not proved, never as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ...frames.images import read_frame
from ...spikes.between import Cut
from ...spikes.camera import luminance
from ...spikes.clock import SpikeClock
from ...spikes.registration import Registration
from ...spikes.stream import SpikeStream
from ..manifest import Problem, ReferenceKind, Verification
from ..verification import FRAMES_OF_KIND
from .lag import Lobe, Match, find_lag
from .registration import seen_by_spikes
from .sliding import Plane, Reference

MAX_FRAMES = 7
"""Most frames of a sequence that are compared, spread over it."""

_FRAMES_TO_AGREE = 3
"""Most sharp frames that are compared where blurred ones prove the lag."""

PROVED = 0.9
"""Confidence from which a lag or a registration counts as proved."""

LIKELY = 0.8
"""Correlation below which other orientations, geometries and recordings are tried as well."""

ALIKE = 0.5
"""Correlation below which likeness may be chance: REDS reaches 0.85 to 0.98, upside down 0.3."""
_LARGEST_DRIFT_ERROR = 0.01
"""Standard error, as a share of the rate, above which nothing is known of a drift."""
_EDGE = 1 / 8
"""Share of the search at each end, where a curve that hardly falls may go on to rise."""
_MIN_DROP = 0.01
"""Least fall of the curve on both sides of its peak; with less, nothing moves."""


_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameAt:
    """One exposure's frames, and the samples at which the timeline puts them."""

    blur: Path | None
    sharp: Path | None
    spikes: SpikeStream
    clock: SpikeClock
    t0: float
    """Start of the exposure, in seconds."""
    t1: float
    """End of the exposure, in seconds; it belongs to the exposure."""
    registration: Registration | None = None
    """Registration of the spikes; None: both cameras see the same."""
    cut: Cut | None = None
    """Part of the recording to which reading is confined; None: all of it."""

    @property
    def samples(self) -> int:
        """N, samples in the exposure."""
        start, stop = self.clock.samples(self.t0, self.t1)
        return stop - start

    @property
    def at(self) -> float:
        """Sample of the exposure's middle; may be fractional."""
        return ((self.t0 + self.t1) / 2 - self.clock.first) * self.clock.rate

    def has(self, kind: ReferenceKind) -> bool:
        """Whether there is a frame of this kind."""
        return (self.blur if kind == "blur" else self.sharp) is not None

    def image(self, kind: ReferenceKind) -> Path:
        """Return the file of the frame of this kind, which must be there."""
        path = self.blur if kind == "blur" else self.sharp
        assert path is not None, "exposures without such a frame are left out"
        return path


def verify_sequence(frames: list[FrameAt]) -> Verification | None:
    """Measure how far the spikes lag behind the images, and how sure that is.

    Searches two exposures to each side, as far as the recordings go, on up to MAX_FRAMES frames.

    Args:
        frames: exposures of one sequence in order of time, of one rate and length.

    Returns:
        The lag with its confidence; None: there is no frame to compare with.

    Raises:
        ImageError: an image can't be read.
    """
    return match_sequence(frames)[0]


def match_sequence(frames: list[FrameAt]) -> tuple[Verification | None, Match | None]:
    """Return what `verify_sequence` does, and where the blurred frames fit best."""
    if not frames:
        return None, None
    rate, samples = frames[0].clock.rate, frames[0].samples

    def judged(kind: ReferenceKind, most: int) -> tuple[Verification | None, Match | None]:
        if not any(comparable(frame, kind) for frame in frames):
            return None, None
        match = find_best(frames, kind, most)
        return judge(match, kind, rate, samples), match

    blur, match = judged("blur", MAX_FRAMES)
    proved = blur is not None and blur.confident
    sharp, _ = judged("sharp", _FRAMES_TO_AGREE if proved else MAX_FRAMES)
    if sharp is None or (blur is not None and not sharp.confident):
        return blur, match
    return _agreeing(blur, sharp) if blur is not None and proved else sharp, match


def find_best(frames: list[FrameAt], kind: ReferenceKind, most: int = MAX_FRAMES) -> Match | None:
    """Return where up to `most` frames of a kind fit best; None: none is there, or all are flat."""
    chosen = spread([frame for frame in frames if comparable(frame, kind)], most)
    if not chosen:
        return None
    samples = chosen[0].samples
    references = [
        Reference(
            image=read_luminance(
                frame.image(kind), frame.spikes.geometry.shape, frame.registration
            ),
            spikes=frame.spikes,
            at=frame.at,
            widths=(samples,) if kind == "blur" else sharp_widths(samples),
        )
        for frame in chosen
    ]
    return find_lag(references, *search_range(samples))


def comparable(frame: FrameAt, kind: ReferenceKind) -> bool:
    """Whether there is a frame, and room in the recording for its TFP to slide."""
    first, stop = frame.spikes.whole
    room = stop - first - frame.samples
    return frame.has(kind) and (kind == "sharp" or room >= frame.samples / 2)


def search_range(samples: int) -> tuple[int, int]:
    """Return (reach to each side, step) of the coarse search, in samples, for exposures of N."""
    step = max(1, min(2, samples // 16), samples // 32)
    return max(2 * samples, min(512, 16 * samples)), step


def sharp_widths(samples: int) -> tuple[int, ...]:
    """Return the lengths of TFP that a sharp frame may look like, odd, in samples."""
    widths = [5]
    while 2 * widths[-1] - 1 <= max(5, min(samples, max(65, samples // 2))):
        widths.append(2 * widths[-1] - 1)
    return tuple(widths)


def spread(frames: list[_T], most: int) -> list[_T]:
    """Return up to `most` items, evenly spread, the first and the last among them."""
    if len(frames) <= most:
        return frames
    return [frames[round(i * (len(frames) - 1) / (most - 1))] for i in range(most)]


def confidence(match: Match, samples: int) -> float:
    """Return the probability that a lag is right to within 1 % of the exposure, or one sample.

    Two things may be wrong: the lag inside its lobe, which has a standard error, and the lobe,
    where a rival comes close. `docs/alignment.md` shows how often such lags were right.
    """
    tolerance = max(1.0, samples / 100)
    precise = math.erf(tolerance / (math.sqrt(2) * match.error))
    right_lobe = 0.5 * (1 + math.erf(match.lobe.lead / (2 * math.sqrt(2))))
    return round(precise * right_lobe, 4)


def judge(match: Match | None, kind: ReferenceKind, rate: float, samples: int) -> Verification:
    """Return the lag of a match, in words for people too.

    Args:
        match: the best match; None: there is none.
        kind: kind of the frames that were compared.
        rate: spike samples a second, in Hz.
        samples: samples of an exposure.
    """
    if match is None:
        return Verification(
            lag_frames=0.0,
            lag_seconds=0.0,
            correlation=0.0,
            confident=False,
            by=kind,
            problem="flat",
            warning="frames or spikes are flat: nothing to compare, so the lag is not proved",
        )
    lag, sure = round(match.lag, 4), confidence(match, samples)
    problem, warning = _what_is_wrong(match, kind, rate, samples)
    proved = problem is None
    drifts = match.drift_error is not None and match.drift_error <= _LARGEST_DRIFT_ERROR
    return Verification(
        lag_frames=lag,
        lag_seconds=round(lag / rate, 9),
        correlation=round(min(1.0, max(-1.0, match.peak)), 6),
        confident=proved,
        warning=warning,
        by=kind,
        problem=problem,
        error_frames=round(match.error, 4) if math.isfinite(match.error) else None,
        at_frame=round(match.at, 4),
        drift_ppm=round(1e6 * (match.drift or 0.0), 1) if drifts else None,
        drift_error_ppm=round(1e6 * (match.drift_error or 0.0), 1) if drifts else None,
        rival=None if match.lobe.rival is None else round(match.lobe.rival[1], 6),
        confidence=sure if proved or problem in ("rival", "unsure") else 0.0,
    )


def _what_is_wrong(
    match: Match, kind: ReferenceKind, rate: float, samples: int
) -> tuple[Problem | None, str | None]:
    """Return why the match proves no lag, and what is wrong, in a sentence; None: nothing."""
    sure, lobe, lag = confidence(match, samples), match.lobe, round(match.lag, 4)
    where = f"best match at {lag:+.1f} samples ({1000 * lag / rate:+.3f} ms)"
    other_fields = (
        "if the cameras see different fields, give --calibration, or `align --estimate-space`"
    )
    if match.peak < ALIKE:
        return "unlike", (
            f"spikes and {FRAMES_OF_KIND[kind]} do not look alike (correlation {match.peak:.2f} at "
            f"best): check geometry, row order and that they belong together, or, {other_fields}"
        )
    if np.nanmax(lobe.curve) - np.nanmin(lobe.curve) < _MIN_DROP:
        return _still(match)
    if lobe.at_edge or (lobe.drop < _MIN_DROP and _is_near_the_edge(lobe)):
        return "edge", f"{where}, at the end of the search: the true lag may lie beyond"
    if lobe.drop < _MIN_DROP:
        return _still(match)
    if sure < PROVED and lobe.rival is not None and lobe.lead < 2:
        rival = f"{lobe.rival[1]:.3f} to {match.peak:.3f}"
        return "rival", f"{where}, but another time matches as well ({rival})"
    if sure < PROVED:
        warning = f"{where}, but only to +-{match.error:.1f} samples: the lag is not proved"
        return "unsure", warning + (f"; {other_fields}" if match.peak < LIKELY else "")
    return None, None


def _is_near_the_edge(lobe: Lobe) -> bool:
    known = np.flatnonzero(np.isfinite(lobe.curve))
    return bool(min(lobe.top - known[0], known[-1] - lobe.top) < _EDGE * len(known))


def _still(match: Match) -> tuple[Problem, str]:
    return "still", (
        f"the correlation hardly changes with time ({match.peak:.3f}, falling by "
        f"{match.lobe.drop:.3f}): nothing moves, so the lag is not proved"
    )


def _agreeing(blur: Verification, sharp: Verification) -> Verification:
    """Return the lag of the blurred frames, with a warning where sharp ones contradict it."""
    apart = sharp.lag_frames - blur.lag_frames
    error = math.hypot(blur.error_frames or 0.0, sharp.error_frames or 0.0)
    if blur.warning or abs(apart) <= max(2.0, 5 * error):
        return blur
    warning = (
        f"the sharp frames lie {apart:+.1f} samples from the middles of the blurred ones: check "
        "that both are of the same instants (--exposure, file names)"
    )
    return blur.model_copy(update={"problem": "sharp apart", "warning": warning})


def read_luminance(
    path: Path, shape: tuple[int, int], registration: Registration | None = None
) -> Plane:
    """Return an image's luminance in [0, 1] at the spikes' pixels, (h, w); NaN outside the frame.

    Args:
        path: the image.
        shape: (h, w) to which the image is brought by area mean.
        registration: where spike pixels lie in the frame; None: both cameras see the same.

    Raises:
        ImageError: missing, or no plain 8-bit image, or of another size than registered.
    """
    if registration is not None:
        return seen_by_spikes(luminance(read_frame(path, registration.frame_shape)), registration)
    plane = luminance(read_frame(path))  # (H, W)
    height, width = shape
    if plane.shape == shape:
        return plane
    smaller = plane.shape[0] >= height and plane.shape[1] >= width
    how = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(plane).resize((width, height), how), np.float32)
