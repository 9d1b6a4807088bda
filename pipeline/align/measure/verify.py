"""Are the spikes where the timeline says, and are they the right ones? The images can tell.

The blurred frame of an exposure looks like the TFP of just that exposure, and the sharp one like
a short TFP at its middle. Sliding the TFP over the recording shows where each really is. The
blurred frame decides where it can, since its long TFP has little noise; where the recordings end
with their exposures it can't, and the sharp one does.

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

from ...frames.images import read_rgb
from ...spikes.camera import luminance
from ...spikes.clock import SpikeClock
from ...spikes.dat import SpikeFile
from ...spikes.registration import Registration
from ..manifest import Problem, ReferenceKind, Verification
from .lag import Match, find_lag
from .registration import seen_by_spikes
from .sliding import Plane, Reference

MAX_FRAMES = 7
"""Frames of a sequence that are compared, spread over it."""

_FRAMES_TO_AGREE = 3
"""Sharp frames that are compared where the blurred ones prove the lag."""

PROVED = 0.9
"""Confidence from which a lag counts as proved."""

LIKELY = 0.8
"""Correlation under which orientation, geometry and other recordings are tried as well."""

_MIN_CORRELATION = 0.5
"""Under this, likeness may be chance: REDS upside down still reaches 0.3, upright 0.85 to 0.98."""
_MIN_DROP = 0.01
"""The curve must fall by this on both sides of its peak, or nothing moves."""


_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameAt:
    """One exposure's images and where the timeline puts them."""

    blur: Path | None
    sharp: Path | None
    spikes: SpikeFile
    clock: SpikeClock
    t0: float
    """Start of the exposure, in seconds."""
    t1: float
    """Its end, in seconds; it belongs to the exposure."""
    registration: Registration | None = None
    """From spike to frame pixels; None: both cameras see the same."""

    @property
    def samples(self) -> int:
        """N, samples in the exposure."""
        start, stop = self.clock.samples(self.t0, self.t1)
        return stop - start

    @property
    def at(self) -> float:
        """Sample of the exposure's middle."""
        return ((self.t0 + self.t1) / 2 - self.clock.first) * self.clock.rate

    def image(self, kind: ReferenceKind) -> Path | None:
        """Return the file of one kind of image."""
        return self.blur if kind == "blur" else self.sharp

    def luminance(self, kind: ReferenceKind) -> Plane:
        """Return one kind of image at the spikes' pixels (h, w); NaN outside the frame."""
        path = self.image(kind)
        assert path is not None, "frames without that image are left out"
        return read_luminance(path, self.spikes.geometry.shape, self.registration)


@dataclass(frozen=True, slots=True)
class LagFinding:
    """What the images of one kind show."""

    kind: ReferenceKind
    match: Match | None
    """None: all are flat, or nothing can be compared."""


def verify_sequence(frames: list[FrameAt]) -> Verification | None:
    """Measure how far the spikes lag behind the images, and how sure that is.

    Searches two exposures to each side, as far as the recordings go, on up to MAX_FRAMES frames.

    Args:
        frames: of one sequence, in order of time; all with the same rate and exposure.

    Returns:
        The lag with its confidence; None where there is no image to compare with.

    Raises:
        ImageError: an image can't be read.
    """
    if not frames:
        return None
    rate, samples = frames[0].clock.rate, frames[0].samples

    def judge(kind: ReferenceKind, most: int) -> Verification | None:
        finding = find_best(frames, kind, most)
        return None if finding is None else _judge(finding, rate, samples)

    blur = judge("blur", MAX_FRAMES)
    if blur is not None and blur.confident:
        sharp = judge("sharp", _FRAMES_TO_AGREE)
        return _agreeing(blur, sharp) if sharp is not None and sharp.confident else blur
    sharp = judge("sharp", MAX_FRAMES)
    if sharp is not None and (blur is None or sharp.confident):
        return sharp
    return blur


def find_best(
    frames: list[FrameAt], kind: ReferenceKind, most: int = MAX_FRAMES
) -> LagFinding | None:
    """Return where the images of one kind fit best; None where there are none of it."""
    chosen = spread([frame for frame in frames if _comparable(frame, kind)], most)
    if not chosen:
        return None
    samples = chosen[0].samples
    references = [
        Reference(
            image=frame.luminance(kind),
            spikes=frame.spikes,
            at=frame.at,
            widths=(samples,) if kind == "blur" else sharp_widths(samples),
        )
        for frame in chosen
    ]
    reach, step = search_range(samples)
    return LagFinding(kind, find_lag(references, reach, step))


def _comparable(frame: FrameAt, kind: ReferenceKind) -> bool:
    """Whether there is an image, and room for its TFP to slide."""
    room = frame.spikes.n_frames - frame.samples
    return frame.image(kind) is not None and (kind == "sharp" or room >= frame.samples / 2)


def search_range(samples: int) -> tuple[int, int]:
    """Return (reach to each side, step) of the coarse search, for exposures of N samples."""
    step = max(1, min(2, samples // 16), samples // 32)
    return max(2 * samples, min(512, 16 * samples)), step


def sharp_widths(samples: int) -> tuple[int, ...]:
    """Return the lengths of TFP that a sharp frame may look like, in samples; odd."""
    widths = [5]
    while 2 * widths[-1] - 1 <= max(5, min(samples, max(65, samples // 2))):
        widths.append(2 * widths[-1] - 1)
    return tuple(widths)


def spread(frames: list[_T], most: int) -> list[_T]:
    """Return up to `most` frames, evenly spread, first and last among them."""
    if len(frames) <= most:
        return frames
    return [frames[round(i * (len(frames) - 1) / (most - 1))] for i in range(most)]


def confidence(match: Match, samples: int) -> float:
    """Return the probability that a lag is right to within 1 % of the exposure, or one sample.

    Two things may be wrong: the lag inside its lobe, whose standard error is known, and the lobe,
    where a rival comes close. `docs/alignment.md` has how often it was right.
    """
    tolerance = max(1.0, samples / 100)
    precise = math.erf(tolerance / (math.sqrt(2) * match.error))
    right_lobe = 0.5 * (1 + math.erf(match.lead / (2 * math.sqrt(2))))
    return round(precise * right_lobe, 4)


def _judge(finding: LagFinding, rate: float, samples: int) -> Verification:
    match, kind = finding.match, finding.kind
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
    found = f"best match at {lag:+.1f} samples ({1000 * lag / rate:+.3f} ms)"
    problem: Problem | None = None
    warning: str | None = None
    if match.peak < _MIN_CORRELATION:
        problem = "unlike"
        warning = (
            f"spikes and {kind} frames do not look alike (correlation {match.peak:.2f} at best): "
            "check geometry, row order and that they belong together, or, if the cameras see "
            "different fields, give --calibration or --estimate-space"
        )
    elif match.at_edge:
        problem = "edge"
        warning = f"{found}, at the end of the search: the true lag may lie beyond"
    elif match.drop < _MIN_DROP:
        problem = "still"
        warning = (
            f"the correlation hardly changes with time ({match.peak:.3f}, falling by "
            f"{match.drop:.3f}): nothing moves, so the lag is not proved"
        )
    elif sure < PROVED and match.rival is not None and match.lead < 2:
        problem = "rival"
        warning = (
            f"{found}, but another time matches as well ({match.rival:.3f} to {match.peak:.3f})"
        )
    elif sure < PROVED:
        problem = "unsure"
        warning = f"{found}, but only to +-{match.error:.1f} samples: the lag is not proved"
        if match.peak < LIKELY:
            warning += (
                "; if the cameras see different fields, give --calibration or --estimate-space"
            )
    proved = problem is None
    if proved and abs(lag) > (samples - 1) / 2:
        warning = (
            f"{found}, more than half an exposure away: check fps, rate and first sample, or let "
            "--estimate correct the clock"
        )
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
        drift_ppm=None if match.drift is None else round(1e6 * match.drift, 1),
        drift_error_ppm=None if match.drift_error is None else round(1e6 * match.drift_error, 1),
        rival=None if match.rival is None else round(match.rival, 6),
        confidence=sure if proved or problem in ("rival", "unsure") else 0.0,
    )


def _agreeing(blur: Verification, sharp: Verification) -> Verification:
    """Return what the blurred frames show, with a warning where sharp ones contradict it."""
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
    """Read an image as luminance in [0, 1], brought to the spikes' pixels `shape` by area mean.

    Raises:
        ImageError: missing, or no plain 8-bit image, or of another size than registered.
    """
    if registration is not None:
        return seen_by_spikes(luminance(read_rgb(path, registration.frame_shape)), registration)
    plane = luminance(read_rgb(path))  # (H, W)
    height, width = shape
    if plane.shape == shape:
        return plane
    smaller = plane.shape[0] >= height and plane.shape[1] >= width
    how = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(plane).resize((width, height), how), np.float32)
