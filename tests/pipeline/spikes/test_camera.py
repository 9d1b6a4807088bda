import numpy as np
import pytest

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.spikes.camera import SpikeCamera


def record(camera, light, samples, seed=0):
    frames = camera.record([light] * samples, np.random.default_rng(seed))
    return np.stack(list(frames))


@pytest.mark.parametrize("threshold", [1.0, 2.0, 5.0])
def test_the_rate_is_gain_times_luminance_and_no_light_is_lost(threshold):
    light = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    camera = SpikeCamera(threshold=threshold)
    counted = record(camera, light, 1000).sum(axis=0)
    # Soft reset: after any time the count is within one of the integral over the threshold.
    np.testing.assert_allclose(counted, 1000 * camera.gain * light, atol=1.01)


def test_spikes_equal_the_closed_form_of_integrate_and_fire():
    rng = np.random.default_rng(3)
    light = (rng.integers(0, 256, (300, 6, 6)) / 256).astype(np.float32)  # exact in float32
    phase = np.random.default_rng(0).uniform(0, 2.0, (6, 6)).astype(np.float32)
    spikes = np.stack(list(SpikeCamera(threshold=2.0).record(light, np.random.default_rng(0))))
    integral = np.cumsum(light.astype(np.float64), axis=0) + phase
    fired = np.diff(np.floor(integral / 2.0), axis=0, prepend=0)
    assert (spikes != fired).mean() < 1e-3  # float32 against float64 at the threshold itself


def test_equal_neighbours_do_not_fire_together():
    spikes = record(SpikeCamera(threshold=4.0), np.full((32, 32), 1.0, np.float32), 4)
    assert (np.abs(spikes.mean(axis=(1, 2)) - 0.25) < 0.06).all()


def test_noise_adds_spikes_at_its_rate():
    dark = np.zeros((64, 64), np.float32)
    assert record(SpikeCamera(noise=0.01), dark, 200).mean() == pytest.approx(0.01, rel=0.05)
    assert record(SpikeCamera(noise=0.0), dark, 200).sum() == 0


def test_the_same_seed_gives_the_same_stream():
    light = np.full((8, 8), 0.4, np.float32)
    camera = SpikeCamera(noise=0.1)
    np.testing.assert_array_equal(record(camera, light, 50, 5), record(camera, light, 50, 5))
    assert (record(camera, light, 50, 5) != record(camera, light, 50, 6)).any()


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"noise": 1.0}])
def test_impossible_cameras_are_refused(wrong):
    with pytest.raises(SpikeDeblurError):
        SpikeCamera(**wrong)


class FromZero:
    """A generator whose integrals begin at 0; without noise nothing else is drawn."""

    def uniform(self, low, high, shape):
        return np.zeros(shape)


def test_a_pixel_fires_in_the_sample_that_fills_its_integral():
    light = np.array([[0.5, 1.0, 0.25]], np.float32)
    spikes = np.stack(list(SpikeCamera(threshold=1.0).record([light] * 4, FromZero())))
    assert spikes[:, 0].T.tolist() == [
        [False, True, False, True],
        [True] * 4,
        [False, False, False, True],
    ]
