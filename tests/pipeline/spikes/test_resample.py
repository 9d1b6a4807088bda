"""Light in another grid: integrals of a known function, no light lost, crops of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from spikedeblur.pipeline.spikes.resample import Resampling

SIZES = [((25, 40), (48, 64)), ((25, 40), (24, 32)), ((40, 30), (12, 16)), ((2, 3), (7, 5))]


def integrals(pixels: int) -> np.ndarray:
    """The mean of 2 + sin 9x over each of so many parts of 0 to 1."""
    edges = np.linspace(0, 1, pixels + 1)
    return np.diff(2 * edges - np.cos(9 * edges) / 9) * pixels


@pytest.mark.parametrize("new", [20, 33, 40, 64, 100])
def test_a_new_pixel_has_the_mean_of_the_light_on_it(new: int) -> None:
    old = integrals(40)
    inside = slice(new // 5, -(new // 5))  # beyond the border nothing is known
    along_rows = Resampling((40, 1), (new, 1)).resampled(old[:, None])[:, 0]
    along_columns = Resampling((1, 40), (1, new)).resampled(old[None])[0]
    for found in (along_rows, along_columns):
        np.testing.assert_allclose(found[inside], integrals(new)[inside], atol=2e-5)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_no_light_is_lost_and_even_light_stays_even(old, new) -> None:
    planes = np.random.default_rng(0).random((2, *old)).astype(np.float32)
    found = Resampling(old, new).resampled(planes)
    assert found.shape == (2, *new)
    np.testing.assert_allclose(found.mean((1, 2)), planes.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(Resampling(old, new).resampled(np.ones(old)), 1, rtol=1e-6)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_whole_squares_of_pixels_become_their_mean_and_nothing_else(times: int) -> None:
    planes = np.random.default_rng(0).random((3, 4 * times, 5 * times)).astype(np.float32)
    squares = planes.reshape(3, 4, times, 5, times).mean((2, 4))
    found = Resampling(planes.shape[1:], (4, 5)).resampled(planes)
    np.testing.assert_allclose(found, squares, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_crop_is_the_part_of_the_whole_bit_for_bit(old, new, dtype) -> None:
    rng = np.random.default_rng(1)
    planes = (9 * rng.random((2, 3, *old))).astype(dtype)
    resampling = Resampling(old, new)
    whole = resampling.resampled(planes)
    for _ in range(20):
        rows, columns = (tuple(sorted(rng.choice(n + 1, 2, replace=False))) for n in new)
        (top, bottom), (left, right) = resampling.around(rows, columns)
        assert 0 <= top < bottom <= old[0]
        assert 0 <= left < right <= old[1]
        crop = resampling.resampled(planes[..., top:bottom, left:right], rows, columns)
        np.testing.assert_array_equal(crop, whole[..., slice(*rows), slice(*columns)])


def test_a_crop_needs_few_pixels_beside_it() -> None:
    resampling = Resampling((250, 400), (480, 640))
    assert resampling.around((96, 192), (320, 448)) == ((48, 102), (198, 282))
