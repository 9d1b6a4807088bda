"""PSNR and SSIM against closed forms and their plain definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spikedeblur.pipeline.evaluate.metrics import PSNR_LIMIT, MetricError, psnr, ssim
from spikedeblur.pipeline.frames.images import to_uint8


def noise(seed: int, shape: tuple[int, ...] = (24, 31, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("step", [1, 5, 100, 255])
def test_psnr_of_a_constant_difference_is_its_closed_form(step: int) -> None:
    dark = np.zeros((12, 13, 3), np.uint8)
    assert psnr(dark + np.uint8(step), dark) == pytest.approx(20 * math.log10(255 / step))


def test_psnr_takes_the_error_over_all_pixels_and_channels() -> None:
    sharp = np.zeros((10, 10, 3), np.uint8)
    restored = sharp.copy()
    restored[0, 0, 1] = 30
    assert psnr(restored, sharp) == pytest.approx(10 * math.log10(255**2 * 300 / 900))


def test_psnr_of_identical_frames_is_the_limit_and_ssim_is_one() -> None:
    frame = noise(0)
    assert psnr(frame, frame) == PSNR_LIMIT
    assert ssim(frame, frame) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_two_flat_frames_is_its_closed_form() -> None:
    a, b, c1 = 100 / 255, 150 / 255, 0.01**2
    flat = np.full((20, 20, 3), 100, np.uint8)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(flat, np.full_like(flat, 150)) == pytest.approx(expected, abs=1e-9)


def test_ssim_is_the_published_definition() -> None:
    sharp = noise(1)
    restored = to_uint8(0.7 * sharp / 255 + 0.3 * noise(2) / 255)
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(weights, weights) / weights.sum() ** 2
    values = []
    for c in range(3):
        x, y = restored[..., c] / 255, sharp[..., c] / 255
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
                cov = (window * p * q).sum() - mp * mq
                values.append(
                    (2 * mp * mq + 1e-4)
                    * (2 * cov + 9e-4)
                    / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
                )
    assert ssim(restored, sharp) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_is_torchmetrics_inside_the_border() -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.image import structural_similarity_index_measure

    sharp = noise(3, (40, 50, 3))
    restored = to_uint8(0.5 * sharp / 255 + 0.5 * noise(4, (40, 50, 3)) / 255)
    planes = [torch.from_numpy(f / 255.0).permute(2, 0, 1)[None] for f in (restored, sharp)]
    _, whole = structural_similarity_index_measure(
        planes[0], planes[1], data_range=1.0, return_full_image=True
    )
    assert ssim(restored, sharp) == pytest.approx(float(whole[..., 5:-5, 5:-5].mean()), abs=1e-9)


def test_rounding_is_to_nearest_and_clips() -> None:
    values = np.array([-0.2, 0.0, 0.49 / 255, 0.51 / 255, 1.0, 1.7], np.float32)
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 0, 1, 255, 255])


def test_frames_that_can_not_be_compared_are_refused() -> None:
    frame = noise(0)
    with pytest.raises(MetricError, match="one size"):
        psnr(frame, frame[:-1])
    with pytest.raises(MetricError, match="uint8"):
        psnr(frame / 255, frame)  # type: ignore[arg-type]
    with pytest.raises(MetricError, match="at least 11x11"):
        ssim(frame[:10], frame[:10])
