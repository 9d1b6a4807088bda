"""PSNR and SSIM of a restored frame: 8-bit RGB, whole frames, no border cropped.

Both compare what would be saved: values rounded to 8 bits. Nothing is converted to luminance:
PSNR takes the squared error over all pixels and channels, SSIM is the mean of the three channels.
The window of SSIM reaches 5 pixels to each side, and the mean is over windows that lie inside the
frame, as its authors do; pixels at the border take part through those windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from ...errors import SpikeDeblurError

PSNR_LIMIT = 100.0
"""PSNR of identical frames in dB, so that means and JSON stay finite."""

SSIM_WINDOW = 11
"""Side of the Gaussian window, in pixels."""

SSIM_SIGMA = 1.5
"""Standard deviation of the Gaussian window, in pixels."""


_BAND_PIXELS = 1 << 13  # of a plane, worked through at once: they stay in the core's cache


class MetricError(SpikeDeblurError):
    """Two frames can't be compared."""


@dataclass(frozen=True, slots=True)
class Score:
    """How near a frame, or the mean of many, is to the truth."""

    psnr: float
    """PSNR in dB; higher is better."""
    ssim: float
    """SSIM; 1 for equal frames."""
    lpips: float | None = None
    """LPIPS; 0 for equal frames; None: not measured."""

    def to_json(self) -> dict[str, float]:
        """Return the figures that were measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def psnr(restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> float:
    """Return 10 log10(255^2 / mean squared error) in dB, at most `PSNR_LIMIT`.

    Args:
        restored: (H, W, 3) uint8.
        sharp: (H, W, 3) uint8, the truth.

    Raises:
        MetricError: frames of other shapes or types.
    """
    _require_frames(restored, sharp)
    difference = restored.astype(np.int32) - sharp.astype(np.int32)
    return psnr_of(int(np.sum(difference * difference, dtype=np.int64)) / difference.size)


def psnr_of(mean_square: float) -> float:
    """Return the PSNR in dB, at most `PSNR_LIMIT`, for a mean squared error of 8-bit values."""
    if mean_square == 0:
        return PSNR_LIMIT
    return min(PSNR_LIMIT, float(10 * np.log10(255.0**2 / mean_square)))


def ssim(restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> float:
    """Return the SSIM of one frame; see `ssims`."""
    return ssims([restored], sharp)[0]


def ssims(restored: Sequence[npt.NDArray[np.uint8]], sharp: npt.NDArray[np.uint8]) -> list[float]:
    """Return each frame's mean structural similarity: Gaussian window of 11 pixels, sigma 1.5.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", IEEE TIP 2004, with its constants (0.01, 0.03). What is of the sharp
    frame alone is computed once for all.

    Args:
        restored: frames (H, W, 3) uint8.
        sharp: (H, W, 3) uint8, the truth.

    Raises:
        MetricError: frames of other shapes or types, or smaller than the window.
    """
    for frame in restored:
        _require_frames(frame, sharp)
    if min(sharp.shape[:2]) < SSIM_WINDOW:
        raise MetricError(
            f"expected frames of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels for SSIM, got "
            f"{sharp.shape[0]}x{sharp.shape[1]}; evaluate larger frames"
        )
    # A channel at a time bounds the memory: a plane of float64 a frame, and bands.
    channels = [_ssim_planes([x[..., c] for x in restored], sharp[..., c]) for c in range(3)]
    return [float(np.mean(values)) for values in zip(*channels, strict=True)]


def _ssim_planes(
    restored: Sequence[npt.NDArray[np.uint8]], sharp: npt.NDArray[np.uint8]
) -> list[float]:
    # Not torchmetrics': in float32 its variances are off by 2e-4 of SSIM on flat images, its
    # float64 convolution needs 121 times the frame in memory, and whether it averages over
    # mirrored borders depends on its release (1.9 does).
    height, width = (side - SSIM_WINDOW + 1 for side in sharp.shape)
    similarity = np.empty((len(restored), height, width))
    rows = max(1, _BAND_PIXELS // sharp.shape[1])
    c1, c2 = 0.01**2, 0.03**2
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height))
        read = slice(top, band.stop + SSIM_WINDOW - 1)
        y = sharp[read] / 255.0
        mean_y, square_y = _smooth(np.stack([y, y * y]))
        mean_y_square = mean_y * mean_y
        var_y = square_y - mean_y_square
        for frame, out in zip(restored, similarity[:, band], strict=True):
            x = frame[read] / 255.0
            mean_x, square_x, product = _smooth(np.stack([x, x * x, x * y]))
            mean_x_square = mean_x * mean_x
            var_x = square_x - mean_x_square
            covariance = product - mean_x * mean_y
            np.multiply(2 * mean_x * mean_y + c1, 2 * covariance + c2, out=out)
            out /= (mean_x_square + mean_y_square + c1) * (var_x + var_y + c2)
    return [float(plane.mean()) for plane in similarity]


def _smooth(planes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Gaussian means (n, H - 10, W - 10) around each pixel whose window fits."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):
        length = planes.shape[axis] - SSIM_WINDOW + 1
        before = (slice(None),) * axis
        total = weights[0] * planes[*before, :length]
        product = np.empty_like(total)
        for i, weight in enumerate(weights[1:], 1):
            total += np.multiply(planes[*before, i : i + length], weight, out=product)
        planes = total
    return planes


def _require_frames(restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> None:
    for name, frame in (("restored", restored), ("sharp", sharp)):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise MetricError(
                f"expected the {name} frame as (H, W, 3) uint8, got {frame.shape} {frame.dtype}"
            )
    if restored.shape != sharp.shape:
        raise MetricError(
            f"expected two frames of one size, got {restored.shape[0]}x{restored.shape[1]} and "
            f"{sharp.shape[0]}x{sharp.shape[1]}"
        )
