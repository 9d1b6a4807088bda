from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.evaluate.motion import MotionMeter, MotionScore


def picture(seed: int = 0) -> np.ndarray:
    """Return a smooth random picture (160, 200, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (20, 25, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((200, 160), Image.Resampling.BICUBIC))


def pan(step: int, count: int = 3) -> list[np.ndarray]:
    """Return frames (96, 128, 3) that move by `step` pixels each."""
    whole = picture()
    return [np.ascontiguousarray(whole[16:112, 40 - i * step :][:, :128]) for i in range(count)]


def measure(frames: list[np.ndarray], restored: list[np.ndarray]) -> dict[str, MotionScore]:
    meter = MotionMeter()
    for i, (sharp, ours) in enumerate(zip(frames, restored, strict=True)):
        meter.add(sharp, {"ours": ours}, 0.1 * i, 0.2)  # exposures twice as long as their distance
    return meter.scores()


@pytest.mark.parametrize(("step", "label"), [(0, "0 to 2"), (2, "2 to 8"), (6, "8 to 32")])
def test_pixels_fall_into_the_class_of_their_motion(step, label) -> None:
    frames = pan(step)
    restored = [np.clip(f.astype(int) + 5, 0, 255).astype(np.uint8) for f in frames]
    found = measure(frames, restored)["ours"].psnr
    assert found[label] == pytest.approx(psnr(restored[0], frames[0]), abs=0.5)
    assert max(found, key=lambda name: name == label) == label


def test_steady_frames_have_the_warping_error_of_the_sharp_ones() -> None:
    frames = pan(4)
    flicker = [np.clip(f.astype(int) + 20 * (i % 2), 0, 255) for i, f in enumerate(frames)]
    steady = measure(frames, frames)
    assert steady["ours"].warping_error == steady["sharp"].warping_error
    assert steady["sharp"].warping_error < 1e-3
    shaky = measure(frames, [f.astype(np.uint8) for f in flicker])["ours"].warping_error
    assert shaky == pytest.approx((20 / 255) ** 2, rel=0.3)


def test_sequences_are_not_compared_with_each_other() -> None:
    meter = MotionMeter()
    meter.add(picture(1), {"ours": picture(1)}, 0.0, 0.1)
    meter.begin_sequence()
    meter.add(picture(2), {"ours": picture(2)}, 0.0, 0.1)
    assert meter.scores() == {}
