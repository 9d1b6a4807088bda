"""The curve of correlation over the lag: its slope, errors and rivals."""

from __future__ import annotations

import numpy as np
import pytest
from small_clips import GEOMETRY, record, texture, write_gray

from spikedeblur.pipeline.align.measure.lag import combine, slope
from spikedeblur.pipeline.align.measure.verify import FrameAt, spread, verify_sequence
from spikedeblur.pipeline.spikes import SpikeClock, SpikeFile, parse_geometry, write_spikes


def test_a_slope_is_that_of_the_line_with_the_error_that_the_lags_have():
    at, errors = np.array([0.0, 0.25, 0.75, 1.0]), np.array([1.0, 2.0, 0.5, np.inf])
    growth, error = slope(at, 3 - 0.7 * at, errors)
    weights = 1 / (np.array([1.0, 2.0, 0.5, 1.0]) ** 2 + 0.01)
    spread = np.cov(at, aweights=weights, ddof=0) * weights.sum()
    assert growth == pytest.approx(-0.7)
    assert error == pytest.approx(1 / np.sqrt(spread))
    assert slope(np.full(3, 2.0), np.arange(3.0), np.ones(3)) == (None, None)


def test_lags_that_scatter_more_than_their_errors_make_the_slope_less_sure():
    at, off = np.arange(5.0), np.array([1.0, -1.0, 0.0, -1.0, 1.0])
    _, sure = slope(at, at, np.full(5, 0.1))
    growth, scattered = slope(at, at + off, np.full(5, 0.1))
    assert growth == pytest.approx(1.0)
    # Four squares of 1, over variances of 0.02, for three degrees of freedom.
    assert scattered / sure == pytest.approx(np.sqrt(4 / 0.02 / 3))


def test_curves_that_end_elsewhere_are_joined_without_a_step():
    curve = np.sin(np.linspace(0, 3, 40))
    early, late = curve + 0.2, curve - 0.3
    early[30:], late[:10] = np.nan, np.nan
    joined = combine([early, late])
    np.testing.assert_allclose(joined, curve - 0.05, atol=1e-6)  # in the middle of the two


def test_images_are_chosen_evenly_with_the_first_and_the_last():
    assert spread(list(range(10)), 3) == [0, 4, 9]
    assert spread([5, 6], 3) == [5, 6]


def test_a_scene_that_comes_back_has_a_rival(tmp_path):
    def image_at(frame: float) -> np.ndarray:
        return texture(9 * np.sin(2 * np.pi * frame / 10), speed=1.0)

    geometry = parse_geometry(GEOMETRY)
    write_spikes(tmp_path / "s.dat", record(image_at, 241, 4, 0), geometry)
    frames = []
    for centre in (20, 30, 40):
        blur = np.mean([image_at(i) for i in range(centre - 4, centre + 5)], axis=0)
        write_gray(tmp_path / f"{centre}.png", blur)
        frames.append(
            FrameAt(
                blur=tmp_path / f"{centre}.png",
                sharp=None,
                spikes=SpikeFile.open(tmp_path / "s.dat", geometry),
                clock=SpikeClock(rate=4000),
                t0=(centre - 4) / 1000,
                t1=(centre + 4) / 1000,
            )
        )
    found = verify_sequence(frames)
    assert (found.problem, found.confident) == ("rival", False)
    assert "another time matches as well" in found.warning
