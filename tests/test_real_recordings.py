"""The shipped model on spikes that others made from real video, which it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.methods.contract import MethodClip
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.spikes import parse_geometry, read_spikes, spike_to_voxel
from spikedeblur.pipeline.trained.model_file import find_model

FOLDER = Path(__file__).parents[2] / "shared" / "realdata" / "reds_spike"
NEEDED = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real recordings in {FOLDER.name}/")
MIDDLE = 150


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


@NEEDED
@pytest.mark.slow
@pytest.mark.parametrize("name", ["203_part1_key_id151", "203_part2_key_id151"])
@pytest.mark.parametrize(
    ("exposure", "over_blur", "over_tfp"),
    [(301, 10.0, 1.5), (97, 10.0, 5.0), (65, 10.0, 6.0)],
)
def test_the_shipped_model_beats_blur_and_short_windows(name, exposure, over_blur, over_tfp):
    truth = np.asarray(Image.open(FOLDER / f"{name}.png").convert("L"), float) / 255
    spikes = read_spikes(FOLDER / f"{name}.dat", parse_geometry("250x400,bottom-up"))
    seen = spikes[MIDDLE - exposure // 2 : MIDDLE + exposure // 2 + 1]
    rate = seen.mean(0)
    scale = 0.6  # spikes a sample at unit light
    gray = np.clip(rate / scale, 0, 1)
    large = Image.fromarray(np.rint(255 * gray).astype(np.uint8)).resize((800, 500))  # bicubic
    blurred = np.repeat(np.asarray(large)[..., None], 3, -1)
    window = OneWindow(blurred, spikes, exposure)
    method = ModelOptions(device="cpu").open(find_model("small"))
    restored = method(window, MethodClip(0, 1, 0, 1))[0].mean(-1)
    restored = restored.reshape(250, 2, 400, 2).mean((1, 3))

    ours, blur = matched_psnr(restored, truth), matched_psnr(rate, truth)
    half = [max(1, round(bins * exposure / 32 / 2)) for bins in range(1, 8)]
    shorts = [matched_psnr(spikes[MIDDLE - h : MIDDLE + h + 1].mean(0), truth) for h in half]
    print(f"{name} {exposure}: blur {blur:.2f}, best TFP {max(shorts):.2f}, model {ours:.2f}")
    assert ours > blur + over_blur
    assert ours > max(shorts) + over_tfp
