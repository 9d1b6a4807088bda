"""PSNR and SSIM of a restored frame: 8-bit RGB, whole frames, no border cropped.

Both compare what would be saved: values rounded to 8 bits. Nothing is converted to luminance:
PSNR takes the squared error over all pixels and channels, SSIM is the mean of the three
channels'. Its window reaches 5 pixels to each side, and its map is averaged where the window
lies inside the frame, as its authors do; the pixels at the border take part through the windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import SpikeDeblurError

PSNR_LIMIT = 100.0
"""dB: identical frames count as this, so that means and JSON stay finite."""

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


class MetricError(SpikeDeblurError):
    """Two frames can't be compared."""


@dataclass(frozen=True, slots=True)
class Score:
    """How near a frame, or the mean of many, is to the truth."""

    psnr: float
    """In dB."""
    ssim: float


def to_uint8(frames: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return values in [0, 1] as uint8, rounded to nearest; values outside are clipped."""
    return (np.clip(frames, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def score(restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> Score:
    """Return PSNR and SSIM of one frame. Arguments and errors as in `psnr` and `ssim`."""
    return Score(psnr(restored, sharp), ssim(restored, sharp))


def psnr(restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> float:
    """Return 10 log10(255^2 / mean squared error) in dB, at most `PSNR_LIMIT`.

    Args:
        restored: (H, W, 3) uint8.
        sharp: (H, W, 3) uint8, the truth.

    Raises:
        MetricError: other shapes or types.
    """
    _require_frames(restored, sharp)
    difference = restored.astype(np.int32) - sharp.astype(np.int32)
    squares = int(np.sum(difference * difference, dtype=np.int64))
    if squares == 0:
        return PSNR_LIMIT
    return min(PSNR_LIMIT, float(10 * np.log10(255.0**2 * difference.size / squares)))


def ssim(restored: npt.NDArray[np.uint8], sharp: npt.NDArray[np.uint8]) -> float:
    """Return the mean structural similarity: Gaussian window of 11 pixels, sigma 1.5.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", IEEE TIP 2004, with its constants (0.01, 0.03), as torchmetrics
    computes it.

    Args:
        restored: (H, W, 3) uint8.
        sharp: (H, W, 3) uint8, the truth.

    Raises:
        MetricError: other shapes or types, or frames smaller than the window.
    """
    _require_frames(restored, sharp)
    if min(sharp.shape[:2]) < SSIM_WINDOW:
        raise MetricError(
            f"expected frames of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels for SSIM, got "
            f"{sharp.shape[0]}x{sharp.shape[1]}; evaluate larger frames"
        )
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    def channels(frame: npt.NDArray[np.uint8]) -> torch.Tensor:
        planes = np.ascontiguousarray(frame.transpose(2, 0, 1)[:, None])  # (3, 1, H, W)
        return torch.from_numpy(planes).to(torch.float32) / 255

    with torch.inference_mode():
        value = structural_similarity_index_measure(
            channels(restored), channels(sharp), sigma=SSIM_SIGMA, data_range=1.0
        )
    assert isinstance(value, torch.Tensor)
    return float(value)


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
