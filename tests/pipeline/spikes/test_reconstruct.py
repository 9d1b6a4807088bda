import numpy as np
import pytest

from spikedeblur.pipeline.spikes import SpikeWindowError, sdm, tfi, tfp
from spikedeblur.pipeline.spikes.camera import SpikeCamera, luminance


def one_pixel(length, *spikes):
    stream = np.zeros((length, 1, 1), np.uint8)
    stream[list(spikes)] = 1
    return stream


def test_tfp_is_the_rate_over_the_gain():
    spikes = one_pixel(10, 1, 3, 5)
    assert tfp(spikes)[0, 0] == pytest.approx(0.3)
    assert tfp(spikes, gain=0.5)[0, 0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("spikes", "index", "interval"),
    [
        ((0, 10), 0, 10),  # the spike at index 0 counts
        ((0, 10), 5, 10),
        ((0, 10, 13), 10, 3),  # at a spike: the interval that begins there
        ((0, 10, 13), 12, 3),
        ((5, 9), 2, 4),  # before the first spike: the first interval
        ((5, 9), 20, 4),  # after the last one: the last interval
        ((20,), 3, 55),
    ],
)
def test_tfi_takes_the_interval_around_the_instant(spikes, index, interval):
    assert tfi(one_pixel(55, *spikes), index)[0, 0] == pytest.approx(1 / interval)


def test_tfi_of_no_spikes_is_black():
    assert tfi(one_pixel(55), 20)[0, 0] == 0


def test_tfi_outside_the_window_is_refused():
    with pytest.raises(SpikeWindowError):
        tfi(one_pixel(5, 1), 5)


def test_tfp_and_tfi_return_the_luminance_of_a_still_scene():
    light = np.linspace(0.05, 1.0, 64, dtype=np.float32).reshape(8, 8)
    camera = SpikeCamera(threshold=2.0)
    spikes = np.stack(list(camera.record([light] * 400, np.random.default_rng(0)))).astype(np.uint8)
    np.testing.assert_allclose(tfp(spikes, camera.gain), light, atol=1 / (400 * camera.gain))
    np.testing.assert_allclose(1 / tfi(spikes, 200, camera.gain), 1 / light, atol=2.0)


def test_sdm_of_exact_light_recovers_a_gray_scene():
    rng = np.random.default_rng(0)
    frames = rng.uniform(0.1, 0.9, (9, 16, 16)).astype(np.float32)
    blur = np.repeat(frames.mean(axis=0)[..., None], 3, axis=2)
    restored = sdm(blur, frames[4], frames.mean(axis=0), floor=0.0)
    np.testing.assert_allclose(restored[..., 1], frames[4], atol=1e-5)


def test_sdm_leaves_a_still_scene_as_it_is_and_takes_spikes_of_half_the_size():
    rng = np.random.default_rng(0)
    blur = rng.uniform(0, 1, (16, 12, 3)).astype(np.float32)
    spikes = rng.uniform(0, 1, (8, 6)).astype(np.float32)
    np.testing.assert_allclose(sdm(blur, spikes, spikes), blur, atol=1e-6)


def test_sdm_keeps_the_blurred_frame_where_corrected_light_is_below_0():
    blur = np.full((2, 2, 3), 0.5, np.float32)
    short = np.array([[-0.03, -1 / 255], [0.0, -0.5]], np.float32)
    exposure = np.array([[-0.005, -1 / 255], [-0.02, -0.5]], np.float32)
    np.testing.assert_allclose(sdm(blur, short, exposure), blur)


def test_luminance_weighs_colours_as_the_field_does():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luminance(rgb)[0], [0.299, 0.587, 0.114, 1.0], rtol=1e-6)
