"""Two recordings of real video by others' spike simulator, and how frames are judged on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from spikedeblur.pipeline.methods.contract import Method, MethodClip
from spikedeblur.pipeline.sequences.arrays import ArraySequence
from spikedeblur.pipeline.spikes import parse_geometry, read_spikes

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "reds_spike"
"""Where they are, beside the checkout; they are not part of it."""
NAMES = ("203_part1_key_id151", "203_part2_key_id151")
MIDDLE = 150
"""The sample at which the sharp frame was taken."""
GAIN = 0.6
"""Spikes a sample at unit light."""


def matched_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in dB after the best gain and offset."""
    slope, offset = np.polyfit(image.ravel(), truth.ravel(), 1)
    return float(-10 * np.log10(np.mean((slope * image + offset - truth) ** 2)))


def read_recording(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the sharp frame (250, 400) of 0 to 1, and the spikes (samples, 250, 400)."""
    sharp = np.asarray(Image.open(FOLDER / f"{name}.png").convert("L"), float) / 255
    return sharp, read_spikes(FOLDER / f"{name}.dat", parse_geometry("250x400,bottom-up"))


def exposed(spikes: np.ndarray, exposure: int) -> np.ndarray:
    """Return spikes a sample (h, w) over so many samples about the middle."""
    return spikes[MIDDLE - exposure // 2 : MIDDLE + exposure // 2 + 1].mean(0)


def window_of(spikes: np.ndarray, exposure: int) -> ArraySequence:
    """Return the window with a blurred frame made of its own spikes, at twice their size.

    Training has the same ratio.
    """
    gray = np.clip(exposed(spikes, exposure) / GAIN, 0, 1)
    large = Image.fromarray(np.rint(255 * gray).astype(np.uint8)).resize((800, 500))  # bicubic
    blurred = np.repeat(np.asarray(large)[..., None], 3, -1)
    first = MIDDLE - exposure // 2
    samples = np.array([[first, first + exposure - 1]])
    return ArraySequence(blurred[None], spikes, samples, bins=32)


def restored(method: Method, window: ArraySequence) -> np.ndarray:
    """Return a frame's luminance at the spikes' size (h, w)."""
    return as_seen(method(window, MethodClip(0, 1, 0, 1))[0].mean(-1), window.voxel_shape)


def as_seen(luminance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return luminance at the spikes' size (h, w), half its own."""
    height, width = size
    return luminance.reshape(height, 2, width, 2).mean((1, 3))
