from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikedeblur.pipeline.spikes import SpikeWindowError, spike_to_voxel
from spikedeblur.pipeline.spikes.camera import SpikeCamera
from spikedeblur.pipeline.spikes.intervals import light_of_counts, light_of_spikes


def of_counts(counts: list[int], samples: int) -> np.ndarray:
    """Return the light (K,) of one pixel's counts."""
    return light_of_counts(np.array(counts, np.uint8)[:, None, None], samples)[:, 0, 0]


def of_spikes(at: list[int], samples: int, bins: int, *beside: int) -> np.ndarray:
    """Return the light (K,) of one pixel that fires at some samples."""
    spikes = np.zeros((samples, 1, 1), np.uint8)
    spikes[at] = 1
    return light_of_spikes(spikes, bins, *beside)[:, 0, 0]


@pytest.mark.parametrize("gap", [1, 2, 3, 5])
def test_steady_spikes_are_a_steady_light(gap):
    counts = [0] * 32
    counts[gap // 2 :: gap] = [1] * len(counts[gap // 2 :: gap])
    np.testing.assert_allclose(of_counts(counts, 320), 1 / gap, rtol=1e-5)
    np.testing.assert_allclose(
        of_spikes([*range(gap // 2, 320, gap)], 320, 32), 10 / gap, rtol=1e-4
    )


def test_a_spike_is_spread_since_the_one_before():
    # Spikes in the middles of bins 0, 1 and 5: one from 0.5 to 1.5, one from there to 5.5.
    expected = [1.0, 0.5 + 0.125, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]
    np.testing.assert_allclose(of_counts([1, 1, 0, 0, 0, 1, 0, 0], 80), expected, rtol=1e-6)
    # The same in the middles of samples 2, 7 and 27, of bins of 5.
    np.testing.assert_allclose(of_spikes([2, 7, 27], 40, 8), expected, rtol=1e-6)


def test_spikes_beside_the_exposure_say_when_light_came():
    # The exposure is samples 10 to 19; it fires at 8 before, at 12 in it, and at 28 after it.
    light = of_spikes([8, 12, 28], 40, 2, 10, 10)
    np.testing.assert_allclose(light, [(2.5) / 4 + 2.5 / 16, 5 / 16], rtol=1e-5)
    alone = of_spikes([2], 10, 2)
    assert alone.sum() == pytest.approx(1, abs=0.3)


def test_a_pixel_that_fires_only_beside_the_exposure_had_what_light_its_interval_says():
    np.testing.assert_allclose(of_spikes([0, 40], 41, 2, 10, 20), 10 / 40, rtol=1e-5)
    assert of_spikes([0], 41, 2, 10, 20).tolist() == [0, 0]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 50))
def test_light_is_within_one_spike_of_the_counts(counts, more):
    light = of_counts(counts, len(counts) + more).cumsum(0)
    # The light before the first edge is unknown by less than a spike, and so is that after it.
    assert (np.abs(light - np.cumsum(counts)) <= 1 + 1e-3).all()
    assert (np.diff(light, prepend=0) >= -1e-4).all()


@given(st.data())
def test_light_of_spikes_is_within_one_spike_of_their_counts(data):
    bins = data.draw(st.integers(1, 6))
    samples = data.draw(st.integers(bins, 40))
    before, after = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    spikes = np.array(
        data.draw(
            st.lists(
                st.integers(0, 1),
                min_size=before + samples + after,
                max_size=before + samples + after,
            )
        ),
        np.uint8,
    )[:, None, None]
    light = light_of_spikes(spikes, bins, before, samples)
    counts = spike_to_voxel(spikes[before : before + samples], bins)
    assert light.dtype == np.float32
    assert light.shape == counts.shape
    assert (light >= -1e-4).all()
    assert (np.abs((light - counts).cumsum(0)) <= 1 + 1e-3).all()


@given(st.integers(1, 4), st.integers(4, 60), st.floats(0.05, 0.95))
def test_pixels_do_not_see_one_another(bins, samples, share):
    spikes = (np.random.default_rng(samples).random((samples, 3, 4)) < share).astype(np.uint8)
    whole = light_of_spikes(spikes, bins)
    for y, x in np.ndindex(3, 4):
        one = np.ascontiguousarray(spikes[:, y : y + 1, x : x + 1])
        np.testing.assert_array_equal(light_of_spikes(one, bins)[:, 0, 0], whole[:, y, x])


def test_without_spikes_there_is_no_light():
    assert of_counts([0] * 8, 80).tolist() == [0.0] * 8
    assert of_spikes([], 80, 8).tolist() == [0.0] * 8


def test_fewer_samples_than_bins_are_refused():
    with pytest.raises(SpikeWindowError, match="7 samples for 8 bins"):
        of_spikes([], 7, 8)
    with pytest.raises(SpikeWindowError, match="7 samples for 8 bins"):
        of_counts([0] * 8, 7)


@pytest.mark.parametrize("threshold", [1.0, 8.0])
def test_the_finer_the_instants_are_known_the_nearer_light_is_to_the_truth(threshold):
    rng = np.random.default_rng(0)
    samples, bins, beside = 256, 32, 64
    pace = np.linspace(0.2, 1, samples + 2 * beside, dtype=np.float32)[:, None, None]
    light = pace * rng.uniform(0.3, 1, (1, 16, 16)).astype(np.float32)
    fired = SpikeCamera(threshold=threshold).record(light, rng)
    spikes = np.stack(list(fired)).astype(np.uint8)
    part = slice(beside, beside + samples)
    truth = light[part].reshape(bins, -1, 16, 16).sum(1) / threshold

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - truth) ** 2)) * threshold)

    counts = spike_to_voxel(spikes[part], bins)
    errors = [
        error(counts),
        error(light_of_counts(counts.astype(np.uint8), samples)),
        error(light_of_spikes(spikes[part], bins)),
        error(light_of_spikes(spikes, bins, beside, samples)),
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2.5


def test_samples_before_the_exposure_that_hold_no_spike_change_nothing_for_a_lone_one():
    spikes = np.zeros((12, 1, 1), np.uint8)
    spikes[7] = 1
    silent = np.zeros((9, 1, 1), np.uint8)
    np.testing.assert_array_equal(
        light_of_spikes(np.concatenate([silent, spikes]), 3, before=9), light_of_spikes(spikes, 3)
    )
