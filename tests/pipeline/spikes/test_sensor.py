"""Pixels that differ, made equal: the formula, the fill, crops and registration."""

from __future__ import annotations

import numpy as np
import pytest

from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.registration import Registration
from spikedeblur.pipeline.spikes.sensor import PixelCorrection, Sensor, SensorError


def sensor_of(shape: tuple[int, int], filled: list[tuple[int, int]] = (), seed: int = 0) -> Sensor:
    """A sensor of random gains and dark rates."""
    rng = np.random.default_rng(seed)
    bad = np.zeros(shape, np.bool_)
    for place in filled:
        bad[place] = True
    gain = rng.uniform(0.7, 1.3, shape).astype(np.float32)
    return Sensor(gain, rng.uniform(0, 0.01, shape).astype(np.float32), bad, ~bad & False, bad)


def test_what_a_pixel_saw_is_what_it_fired_without_its_dark_rate_over_its_gain():
    sensor = sensor_of((4, 5))
    light = np.random.default_rng(1).uniform(0.1, 0.4, (4, 5))
    samples = np.array([[7, 8], [9, 10]])  # of two windows and two bins
    fired = samples[..., None, None] * (light * sensor.gain + sensor.dark)
    seen = PixelCorrection(sensor).corrected(fired, samples)
    np.testing.assert_allclose(seen, samples[..., None, None] * light, rtol=1e-5)
    assert seen.dtype == np.float32


def test_sums_over_time_are_those_of_corrected_sums():
    """No value is cut off at 0: a bin without a spike is as much too dark as others too bright."""
    sensor = sensor_of((3, 3))
    counts = np.zeros((4, 3, 3), np.uint8)
    counts[2] = 1
    correction = PixelCorrection(sensor)
    seen = correction.corrected(counts, np.full(4, 8))
    assert seen[0].max() < 0
    np.testing.assert_allclose(seen.sum(0), correction.corrected(counts.sum(0), 32), rtol=1e-5)


def test_a_pixel_that_tells_nothing_gets_its_neighbours_the_nearer_the_more():
    sensor = sensor_of((5, 5), [(2, 2)])
    light = np.random.default_rng(2).uniform(1, 2, (5, 5))
    fired = light * sensor.gain + sensor.dark
    fired[2, 2] = 1e6
    seen = PixelCorrection(sensor).corrected(fired, 1)
    beside = light[1, 2] + light[2, 1] + light[2, 3] + light[3, 2]
    across = light[1, 1] + light[1, 3] + light[3, 1] + light[3, 3]
    assert seen[2, 2] == pytest.approx((beside + across / 2) / 6, rel=1e-5)
    good = ~sensor.filled
    np.testing.assert_allclose(seen[good], light[good], rtol=1e-5)


def test_groups_are_filled_from_their_edge_inwards_and_a_slope_goes_on_through_them():
    filled = [(y, x) for y in range(2, 7) for x in range(2, 7)]
    sensor = sensor_of((9, 9), filled)
    slope = np.add.outer(np.arange(9.0), 2 * np.arange(9.0)) + 10
    seen = PixelCorrection(sensor).corrected(slope * sensor.gain + sensor.dark, 1)
    assert seen[4, 4] == pytest.approx(slope[4, 4], rel=1e-5)  # by symmetry
    assert np.abs(seen - slope).max() <= 4  # two pixels along the slope


@pytest.mark.parametrize("rows", [(0, 3), (2, 9), (5, 12)])
@pytest.mark.parametrize("columns", [(0, 16), (3, 8), (11, 16)])
def test_a_crop_is_the_whole_cut(rows, columns):
    rng = np.random.default_rng(5)
    filled = [(y, x) for y in range(12) for x in range(16) if rng.random() < 0.4]
    correction = PixelCorrection(sensor_of((12, 16), filled))
    planes = rng.integers(0, 9, (2, 3, 12, 16))
    samples = np.array([[8, 9, 8], [7, 7, 8]])
    (top, bottom), (left, right) = correction.around(rows, columns)
    part = planes[..., top:bottom, left:right]
    whole = correction.corrected(planes, samples)
    crop = correction.corrected(part, samples, rows, columns)
    np.testing.assert_array_equal(crop, whole[..., slice(*rows), slice(*columns)])


def test_under_a_registration_each_pixel_of_the_grid_has_its_spike_pixels_values():
    sensor = sensor_of((6, 8), [(2, 3)])
    twice = Registration((2.0, 0, -8.0, 0, 2.0, -6.0, 0, 0, 1), (6, 8), (6, 8))  # the middle, large
    correction = PixelCorrection(sensor, twice)
    sources = twice.sources()
    light = 0.3
    fired = (light * sensor.gain + sensor.dark).reshape(-1)[sources]
    fired[sensor.filled.reshape(-1)[sources]] = 1e6
    np.testing.assert_allclose(correction.corrected(fired, 1), light, rtol=1e-5)
    with pytest.raises(SensorError, match=r"expected a sensor of \(6, 8\) pixels.*\(6, 9\)"):
        PixelCorrection(sensor_of((6, 9)), twice)


def test_a_sensor_without_a_usable_pixel_is_refused():
    every = [(y, x) for y in range(2) for x in range(3)]
    with pytest.raises(SensorError, match="usable pixel"):
        PixelCorrection(sensor_of((2, 3), every))


def test_a_camera_of_such_pixels_fires_at_their_rates():
    sensor = sensor_of((8, 8), [(1, 1)])
    light = np.full((8, 8), 0.5, np.float32)
    camera = SpikeCamera(threshold=2.0)
    random = np.random.default_rng(0)
    fired = sum(frame.astype(int) for frame in camera.record([light] * 4000, random, sensor))
    expected = camera.gain * sensor.gain * light + sensor.dark
    good = ~sensor.filled
    np.testing.assert_allclose(fired[good] / 4000, expected[good], atol=1 / 4000)
    alone = camera.record([light] * 40, np.random.default_rng(0))
    equal = Sensor(*(np.full((8, 8), v, np.float32) for v in (1, 0)), *[np.zeros((8, 8), bool)] * 3)
    for one, other in zip(
        alone, camera.record([light] * 40, np.random.default_rng(0), equal), strict=True
    ):
        np.testing.assert_array_equal(one, other)
