"""Two recordings of real video by others' spike simulator, and how frames are judged on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spikedeblur.pipeline.methods.contract import Method, MethodClip
from spikedeblur.pipeline.spikes import parse_geometry, read_spikes, spike_to_voxel

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "reds_spike"
"""Where they are, beside the checkout; they are not part of it."""
NAMES = ("203_part1_key_id151", "203_part2_key_id151")
MIDDLE = 150
"""The sample at which the sharp frame was taken."""
GAIN = 0.6
"""Spikes a sample at unit light."""


@dataclass
class OneWindow:
    """A blurred frame enlarged to twice the spikes' size, the ratio of training."""

    blurred: np.ndarray
    recorded: np.ndarray
    """(samples, h, w), all of the recording; the exposure is around `MIDDLE`."""
    number: int
    """Samples of the exposure, odd."""
    seq: str = "reds"
    length: int = 1
    bins: int = 32
    gain: float | None = None
    windows_are_raw: bool = True
    is_remote: bool = False
    has_spikes: bool = True

    frame_shape = property(lambda self: self.blurred.shape[:2])
    voxel_shape = property(lambda self: self.recorded.shape[1:])
    samples = property(lambda self: np.array([self.number]))

    def blur(self, start: int, stop: int, rows=None, columns=None) -> np.ndarray:
        return self.blurred[None, slice(*(rows or (None,))), slice(*(columns or (None,)))]

    def voxels(self, start: int, stop: int, rows=None, columns=None) -> np.ndarray:
        y, x = slice(*(rows or (None,))), slice(*(columns or (None,)))
        return spike_to_voxel(self.spikes(0), self.bins)[None, :, y, x].astype(np.uint8)

    def spikes(self, window: int, rows=None) -> np.ndarray:
        return self.spikes_beside(window, 0, rows)[0]

    def spikes_beside(self, window: int, beside: int, rows=None, columns=None):
        y, x = slice(*(rows or (None,))), slice(*(columns or (None,)))
        start, stop = MIDDLE - self.number // 2, MIDDLE + self.number // 2 + 1
        first, last = max(0, start - beside), min(stop + beside, len(self.recorded))
        return np.ascontiguousarray(self.recorded[first:last, y, x]), start - first


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


def window_of(spikes: np.ndarray, exposure: int) -> OneWindow:
    """Return the window with a blurred frame made of its own spikes."""
    gray = np.clip(exposed(spikes, exposure) / GAIN, 0, 1)
    large = Image.fromarray(np.rint(255 * gray).astype(np.uint8)).resize((800, 500))  # bicubic
    blurred = np.repeat(np.asarray(large)[..., None], 3, -1)
    return OneWindow(blurred, spikes, exposure)


def restored(method: Method, window: OneWindow) -> np.ndarray:
    """Return a frame's luminance at the spikes' size (h, w)."""
    return as_seen(method(window, MethodClip(0, 1, 0, 1))[0].mean(-1), window.voxel_shape)


def as_seen(luminance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return luminance at the spikes' size (h, w), half its own."""
    height, width = size
    return luminance.reshape(height, 2, width, 2).mean((1, 3))
